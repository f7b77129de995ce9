"""The log over real files: proofs at every size, exactly once, erasure, recovery from what a crash leaves."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from ledger_records import ORIGIN, make_entry, make_intent, make_leaf, make_log, make_signers

from allod.clock import ManualClock
from allod.errors import Integrity, NotFound, NotReady
from allod.ledger import files, intent, statement, tree
from allod.ledger.checkpoint import Checkpoint
from allod.ledger.commitment import RecordKey, commit, key_check, new_receipt_id
from allod.ledger.erasure import Erasure, read_leaf
from allod.ledger.fsck import fsck
from allod.ledger.ids import chunk_path
from allod.ledger.log import Log
from allod.ledger.proof import Prover
from allod.ledger.store import Store
from allod.ledger.verify import ReceiptVerifier, opens
from allod.limits import INDEX_CHUNK_LEAVES
from allod.signing import parse_note


def naive_root(leaves: list[bytes]) -> bytes:
    """RFC 6962 §2.1, word for word."""
    if not leaves:
        return tree.EMPTY_ROOT
    if len(leaves) == 1:
        return tree.leaf_hash(leaves[0])
    k = tree.split(len(leaves))
    return tree.node_hash(naive_root(leaves[:k]), naive_root(leaves[k:]))


def test_every_leaf_is_provable_at_tile_borders(tmp_path: Path) -> None:
    clock = ManualClock()
    log = Log.open(tmp_path, make_signers(), clock)
    roots = {0: tree.EMPTY_ROOT}
    for step in (1, 1, 253, 1, 1, 255, 2, 300):
        log.append([make_entry(clock, n) for n in range(step)])
        leaves = [leaf for _, leaf in log.latest(10_000)][::-1]
        roots[log.size] = naive_root(leaves)
        checkpoint = Checkpoint.parse(parse_note(log.checkpoint()).text)
        assert checkpoint == Checkpoint(ORIGIN, log.size, roots[log.size])
        prover = Prover(Store(tmp_path), log.size)
        for index in range(0, log.size, max(1, log.size // 40)):
            path = prover.inclusion(index)
            assert (
                tree.root_from_inclusion(tree.leaf_hash(leaves[index]), index, log.size, path)
                == checkpoint.root
            )
            assert (
                tree.root_from_inclusion(tree.leaf_hash(b"other"), index, log.size, path) != checkpoint.root
            )
        for old, root in roots.items():
            proof = log.consistency(old)
            assert tree.consistent(old, root, log.size, checkpoint.root, proof)
            assert old in {0, log.size} or not tree.consistent(
                old, root, log.size, checkpoint.root, proof[:-1]
            )
            assert not tree.consistent(old, bytes(32), log.size, checkpoint.root, proof)


def test_a_record_is_in_the_tree_once(tmp_path: Path) -> None:
    clock = ManualClock()
    signers = make_signers()
    log = Log.open(tmp_path, signers, clock)
    entries = [make_entry(clock, n) for n in range(300)]
    log.append(entries[:200], {"w": 200})
    log.append(entries[100:], {"w": 300})
    log.append([*entries[:3], *entries[:3]])
    assert log.size == 300
    assert [log.find(e.id) for e in entries] == list(range(300))
    log.close()
    again = Log.open(tmp_path, signers, clock)
    assert dict(again.cursors) == {"w": 300}
    assert again.append(entries) == 300
    assert again.find(new_receipt_id(clock)) is None


def test_ids_are_found_across_chunks_though_the_clock_steps_back(tmp_path: Path) -> None:
    signers = make_signers()
    count = 2 * INDEX_CHUNK_LEAVES + 5
    entries = [
        make_entry(ManualClock(1_700_000_000_000_000 - (n % 977) * 1_000_000), n) for n in range(count)
    ]
    log = Log.open(tmp_path, signers, ManualClock())
    for at in range(0, count, 5_000):
        log.append(entries[at : at + 5_000])
    log.close()
    log = Log.open(tmp_path, signers, ManualClock())
    for index in (0, 1, INDEX_CHUNK_LEAVES - 1, INDEX_CHUNK_LEAVES, count - 6, count - 1):
        assert log.find(entries[index].id) == index
    assert log.append(entries[::1000]) == count
    assert (tmp_path / chunk_path(1)).exists()
    assert fsck(tmp_path, log.vkeys).ok


def test_erasing_destroys_the_key_and_says_so(tmp_path: Path) -> None:
    clock = ManualClock()
    log = make_log(tmp_path, 20)
    victim = read_leaf(log.leaf(7))
    opening = log.opening(victim.id)
    assert opening.note == b"note"
    assert isinstance(victim, statement.Statement)
    assert opens(victim, opening.key, "input", b"question 7")
    assert not opens(victim, opening.key, "input", b"question 8")
    erasure_id = log.erase(victim.id, by="key-of-the-officer")
    with pytest.raises(NotFound, match=r"receipt\.erased"):
        log.opening(victim.id)
    with pytest.raises(NotFound, match=r"receipt\.erased"):
        log.erase(victim.id, by="again")
    record = read_leaf(log.leaf(20))
    assert isinstance(record, Erasure)
    assert (record.id, record.erased, record.project) == (erasure_id, victim.id, "ward")
    assert b"key-of-the-officer" not in log.leaf(20)
    assert not [p for p in tmp_path.rglob("*") if p.is_file() and opening.key in p.read_bytes()]
    proof = log.proof(7)
    assert ReceiptVerifier(log.vkeys).verify(proof, log.leaf(7)).leaf == victim
    assert fsck(tmp_path, log.vkeys).ok
    assert clock.now_us()


def test_a_crash_between_erasure_leaf_and_key_is_completed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    signers = make_signers()
    log = make_log(tmp_path, 3, signers)
    victim = read_leaf(log.leaf(1)).id
    monkeypatch.setattr(log._keys, "destroy", lambda index: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        log.erase(victim, by="x")
    log.close()
    assert not fsck(tmp_path, log.vkeys).ok
    log = Log.open(tmp_path, signers, ManualClock())
    with pytest.raises(NotFound):
        log.opening(victim)
    assert fsck(tmp_path, log.vkeys).ok


def test_what_an_interrupted_batch_left_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The batch dies right before its commit, having written every file; the next one has other leaves."""
    signers = make_signers()
    clock = ManualClock()
    log = make_log(tmp_path, 300, signers)
    before = log.checkpoint()
    with monkeypatch.context() as m:
        m.setattr("allod.ledger.files.replace", lambda *a, **k: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            log.append([make_entry(clock, n, b"lost") for n in range(1000)])
    log.close()
    log = Log.open(tmp_path, signers, clock)
    assert (log.size, log.checkpoint()) == (300, before)
    assert fsck(tmp_path, log.vkeys).ok
    log.append([make_entry(clock, n) for n in range(5)])
    assert fsck(tmp_path, log.vkeys).ok
    assert log.size == 305


class Crash(BaseException):
    """The process ends here."""


def crash_after(m: pytest.MonkeyPatch, steps: int) -> None:
    """Lets `steps` file operations through and ends at the next, a write half done."""
    left = iter(range(steps))

    def write(fd: int, data: bytes) -> None:
        if next(left, None) is None:
            os.write(fd, memoryview(data)[: len(data) // 2])
            raise Crash
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]

    def counted(real: Callable[..., object]) -> Callable[..., object]:
        def call(*args: object, **kwargs: object) -> object:
            if next(left, None) is None:
                raise Crash
            return real(*args, **kwargs)

        return call

    m.setattr("allod.ledger.files.write_fully", write)
    m.setattr("allod.ledger.files.sync_folder", counted(files.sync_folder))
    m.setattr("allod.ledger.files.sync_together", counted(files.sync_together))
    m.setattr("allod.ledger.store.shutil.rmtree", counted(shutil.rmtree))
    m.setattr("pathlib.Path.replace", counted(Path.replace))


def test_a_batch_is_there_wholly_or_not_at_all_wherever_it_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ends an append at every single file operation; then opens, checks every byte and repeats the batch."""
    for module in ("ids", "keys", "fsck", "log"):
        monkeypatch.setattr(f"allod.ledger.{module}.INDEX_CHUNK_LEAVES", 256)
    signers, clock = make_signers(), ManualClock()
    batch = [make_entry(clock, n, b"x" if n % 3 else b"") for n in range(530)]
    outcomes = set()
    for step in range(100):
        root = tmp_path / str(step)
        log = make_log(root, 250, signers)
        with monkeypatch.context() as m:
            crash_after(m, step)
            try:
                log.append(batch, {"w": 7})
                ended = True
            except Crash:
                ended = False
        log.close()
        log = Log.open(root, signers, clock)
        assert (log.size, dict(log.cursors)) in [(250, {}), (780, {"w": 7})]
        assert fsck(root, log.vkeys).findings == ()
        outcomes.add(log.size)
        assert log.append(batch, {"w": 7}) == 780
        assert [log.find(e.id) for e in batch] == list(range(250, 780))
        assert fsck(root, log.vkeys).findings == ()
        log.close()
        if ended:
            break
    assert ended, "the batch has more steps than were tried"
    assert step > 12
    assert outcomes == {250, 780}


def test_a_full_disk_leaves_the_ledger_as_it_was(tmp_path: Path) -> None:
    """RLIMIT_FSIZE makes the kernel refuse to let a file grow, as a full disk does, without privileges."""
    code = f"""
import resource, sys
from pathlib import Path
from ledger_records import *
from allod.errors import NotReady
log = make_log(Path({str(tmp_path / "l")!r}), 100)
root = log.checkpoint()
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
try:
    log.append([make_entry(ManualClock(), n) for n in range(200)])
except NotReady as e:
    assert e.code == "ledger.no-space" and e.retry_after_s > 0, e
else:
    raise SystemExit("it fitted")
assert (log.size, log.checkpoint()) == (100, root)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
assert log.append([make_entry(ManualClock(), n) for n in range(200)]) == 300
from allod.ledger.fsck import fsck
assert fsck(log.root, log.vkeys).ok
"""
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, env=env)


def test_a_ledger_older_than_its_checkpoint_is_refused(tmp_path: Path) -> None:
    signers = make_signers()
    log = make_log(tmp_path, 10, signers)
    old = (tmp_path / "state").read_bytes()
    log.append([make_entry(ManualClock())])
    newer = log.checkpoint()
    log.close()
    (tmp_path / "state").write_bytes(old)
    with pytest.raises(Integrity, match=r"ledger\.rolled-back"):
        Log.open(tmp_path, signers, ManualClock())
    assert (tmp_path / "checkpoint").read_bytes() == newer


def test_one_process_appends(tmp_path: Path) -> None:
    log = make_log(tmp_path, 1)
    with pytest.raises(NotReady, match=r"ledger\.busy"):
        Log.open(tmp_path, make_signers(), ManualClock())
    log.close()
    with pytest.raises(Integrity):
        Log.open(tmp_path, make_signers(), ManualClock())


def test_latest_is_newest_first_and_pages(tmp_path: Path) -> None:
    log = make_log(tmp_path, 600)
    first = list(log.latest(300))
    second = list(log.latest(1000, before=first[-1][0]))
    assert [i for i, _ in first + second] == list(range(599, -1, -1))
    assert all(log.leaf(i) == leaf for i, leaf in first[::50])


def test_leaves_are_canonical_and_hold_no_content(tmp_path: Path) -> None:
    import rfc8785

    clock = ManualClock()
    made = make_intent(clock)
    leaf = make_leaf(made, clock)
    assert rfc8785.dumps(msgspec.json.decode(leaf)) == leaf
    assert b"key-7" not in leaf
    assert statement.encode(statement.decode(leaf)) == leaf


def test_an_interrupted_exchange_never_ends_before_it_began() -> None:
    """The machine's clock was stepped back between the worker's death and its discovery."""
    made = make_intent(ManualClock(1_700_000_000_000_000))
    ended = intent.interrupted(made, 1_600_000_000_000_000)
    assert ended.started_us <= ended.ended_us
    assert (ended.outcome, ended.output, ended.status) == ("interrupted", "", 0)


def test_commitments_differ_by_key_and_label_and_add_up() -> None:
    key = os.urandom(32)
    record = RecordKey(key)
    streamed = record.commitment("output")
    for part in (b"a" * 1000, b"", b"b"):
        streamed.update(part)
    whole = commit(key, "output", b"a" * 1000 + b"b")
    assert streamed.hexdigest().decode() == whole == record.commit("output", b"a" * 1000 + b"b").decode()
    assert record.check.decode() == key_check(key)
    assert (
        len({commit(key, "input", b"x"), commit(key, "output", b"x"), commit(bytes(32), "input", b"x")}) == 3
    )


def test_receipt_ids_sort_by_time_and_do_not_repeat() -> None:
    clock = ManualClock()
    ids = []
    for _ in range(2000):
        ids.append(new_receipt_id(clock))
        clock.advance(0.001)
    assert ids == sorted(ids)
    same = {new_receipt_id(clock) for _ in range(5000)}
    assert len(same) == 5000
    assert all(len(i) == 28 and i.startswith("r-") for i in same)
