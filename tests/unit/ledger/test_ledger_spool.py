"""The spool: what admission promises, what a reader makes of damage, and a disk that is full."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from ledger_records import make_intent, make_leaf, make_signers

from allod.clock import ManualClock
from allod.errors import NotReady, Unprocessable
from allod.ledger import intent
from allod.ledger import segment as sg
from allod.ledger.drain import FINISHED, Batch, SpoolReader
from allod.ledger.intent import Intent
from allod.ledger.log import Log
from allod.ledger.spool import Spool
from allod.limits import SPOOL_SEGMENT_BYTES_MIN as SMALL

CLOCK = ManualClock()


def record(spool: Spool, *, end: bool = True) -> str:
    made = make_intent(CLOCK)
    spool.begin(intent.encode(made))
    if end:
        spool.end(made.id, make_leaf(made, CLOCK), made.key)
    return made.id


def drain_all(root: Path, cursors: dict[str, int] | None = None, limit: int = 100) -> tuple[list[str], Batch]:
    """Ids in order, with a new reader for every batch: the cursors are all there is."""
    ids: list[str] = []
    at = dict(cursors or {})
    while True:
        batch = SpoolReader(root, CLOCK).drain(at, limit)
        ids += [e.id for e in batch.entries]
        if dict(batch.cursors) == at:
            return ids, batch
        at = dict(batch.cursors)
        if batch.damage:
            return ids, batch


def test_records_come_back_in_order_across_segments_and_restarts(tmp_path: Path) -> None:
    spool = Spool.open(tmp_path, "front-0", segment_bytes=SMALL)
    ids = [record(spool) for _ in range(1500)]
    assert len(list(spool.folder.glob("*.seg"))) > 3
    assert spool.sync() > 0
    assert drain_all(tmp_path)[0] == ids
    more = [record(spool) for _ in range(10)]
    _, batch = drain_all(tmp_path)
    assert drain_all(tmp_path)[0] == ids + more
    more = [record(spool)]
    assert drain_all(tmp_path, dict(batch.cursors))[0] == more
    spool.close()


def test_segments_are_deleted_once_committed_but_not_under_an_open_exchange(tmp_path: Path) -> None:
    spool = Spool.open(tmp_path / "spool", "front-0", segment_bytes=SMALL)
    long_lived = record(spool, end=False)
    for _ in range(1500):
        record(spool)
    root = tmp_path / "spool"
    reader = SpoolReader(root, CLOCK)
    log = Log.open(tmp_path / "ledger", make_signers(), CLOCK)
    while (batch := reader.drain(log.cursors)).entries:
        log.append(batch.entries, batch.cursors)
        reader.release({})
    before = len(list(spool.folder.glob("*.seg")))
    reader.release(log.cursors)
    kept = sorted(p.name for p in spool.folder.glob("*.seg"))
    assert len(kept) < before
    assert kept[0] == "000000000000.seg", "the intent of the open exchange was thrown away"
    spool.close()
    batch = SpoolReader(root, CLOCK).drain(log.cursors)
    assert set(batch.cursors.values()) == {FINISHED}
    assert log.append(batch.entries, batch.cursors) == 1501
    assert log.find(long_lived) == 1500
    SpoolReader(root, CLOCK).release(log.cursors)
    assert list(root.iterdir()) == []


def test_an_open_exchange_of_a_living_worker_is_not_interrupted(tmp_path: Path) -> None:
    spool = Spool.open(tmp_path, "front-0", segment_bytes=SMALL)
    record(spool, end=False)
    assert drain_all(tmp_path)[0] == []
    spool.close()
    assert len(drain_all(tmp_path)[0]) == 1


def test_damage_is_named_and_the_rest_is_still_read(tmp_path: Path) -> None:
    spool = Spool.open(tmp_path, "front-0", segment_bytes=SMALL)
    ids = [record(spool) for _ in range(50)]
    spool.close()
    path = spool.folder / "000000000000.seg"
    data = bytearray(path.read_bytes())
    at = data.index(ids[20].encode(), data.index(ids[20].encode()) + 1)  # in its end record
    data[at + 40] ^= 1
    path.write_bytes(bytes(data))
    batch = SpoolReader(tmp_path, CLOCK).drain({})
    (damage,) = batch.damage
    assert damage.path.endswith("000000000000.seg")
    assert (damage.offset, damage.reason) == (at - sg.FRAME_BYTES, "checksum mismatch")
    got = [e.id for e in batch.entries]
    assert [i for i in got if i != ids[20]] == ids[:20] + ids[21:]
    assert b'"interrupted"' in next(e.leaf for e in batch.entries if e.id == ids[20])


def test_damage_under_a_living_worker_is_reported_and_read_past_once_it_ended(tmp_path: Path) -> None:
    spool = Spool.open(tmp_path, "front-0", segment_bytes=SMALL)
    ids = [record(spool) for _ in range(3)]
    at = spool._current.map.find(ids[1].encode())
    spool._current.map[at + 100] ^= 1
    clock = ManualClock()
    reader = SpoolReader(tmp_path, clock)
    batch = reader.drain({})
    assert [e.id for e in batch.entries] == ids[:1]
    assert batch.damage == ()
    clock.advance(3)
    batch = reader.drain(batch.cursors)
    assert [d.path for d in batch.damage] == [f"{spool.folder.name}/000000000000.seg"]
    assert reader.drain(batch.cursors).damage == ()
    spool.close()
    rest = SpoolReader(tmp_path, clock).drain(batch.cursors)
    assert [e.id for e in rest.entries] == ids[1:]


@pytest.mark.parametrize("cut", [1, sg.FRAME_BYTES + 3, 600])
def test_a_torn_tail_is_not_taken_for_a_record(tmp_path: Path, cut: int) -> None:
    spool = Spool.open(tmp_path, "front-0", segment_bytes=SMALL)
    ids = [record(spool) for _ in range(3)]
    end = spool._current.offset
    spool.close()
    path = spool.folder / "000000000000.seg"
    data = path.read_bytes()
    path.write_bytes(data[: end - cut].ljust(len(data), b"\0"))
    batch = SpoolReader(tmp_path, CLOCK).drain({})
    assert [e.id for e in batch.entries][:2] == ids[:2]
    third = batch.entries[2]
    assert third.id == ids[2]
    assert b'"outcome":"interrupted"' in third.leaf
    assert [d.offset for d in batch.damage], "a torn record is said to be one"


def test_a_payload_whose_frame_was_never_written_is_no_damage(tmp_path: Path) -> None:
    """kill -9 between the two writes of one record: nothing was promised of it, so nothing is reported."""
    spool = Spool.open(tmp_path, "front-0", segment_bytes=SMALL)
    whole = record(spool)
    spool.sync()
    path = next(spool.folder.glob("*.seg"))
    offset = spool._current.offset
    spool.close()
    with path.open("r+b") as f:
        f.seek(offset + sg.FRAME_BYTES)
        f.write(b"half of a record that its worker did not live to frame")
    ids, batch = drain_all(tmp_path)
    assert ids == [whole]
    assert batch.damage == ()
    assert set(batch.cursors.values()) == {FINISHED}


def test_admission_is_refused_before_space_runs_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With nobody integrating: refused with Retry-After, and everything admitted before still fits."""
    monkeypatch.setattr("allod.ledger.spool.SPOOL_BYTES_MAX", 3 * SMALL)
    spool = Spool.open(tmp_path, "front-0", segment_bytes=SMALL)
    begun: list[Intent] = []

    def admit() -> None:
        while True:
            made = make_intent(CLOCK)
            spool.begin(intent.encode(made))
            begun.append(made)

    with pytest.raises(NotReady, match=r"ledger\.backlog") as refused:
        admit()
    assert refused.value.retry_after_s > 0
    assert len(begun) > 30
    with pytest.raises(NotReady):
        spool.check()
    for made in begun:
        spool.end(made.id, b"x" * 15_000, made.key)
    spool.sync()
    assert drain_all(tmp_path)[0] == [made.id for made in begun]


FULL = """
import sys
from pathlib import Path
from ledger_records import *
from allod.errors import NotReady
from allod.ledger import intent
from allod.ledger.drain import SpoolReader
from allod.ledger.spool import Spool
clock = ManualClock()
root = Path(sys.argv[1])
spool = Spool.open(root / "spool", "front-0", segment_bytes=1 << 20)
begun = []
try:
    while True:
        spool.check()
        made = make_intent(clock)
        spool.begin(intent.encode(made))
        begun.append(made)
except NotReady as e:
    assert e.code == "ledger.no-space", e.code
for made in begun:
    spool.end(made.id, make_leaf(made, clock), made.key)
spool.sync()
assert len(begun) > 100, len(begun)
got = SpoolReader(root / "spool", clock).drain({{}}, 1 << 20)
assert [e.id for e in got.entries] == [m.id for m in begun]
(root / "ballast").unlink()
import time
time.sleep(1.1)
spool.check()
print("recovered")
"""


def test_a_full_disk_refuses_requests_and_loses_nothing(tmp_path: Path) -> None:
    """A real full file system: a small tmpfs in a mount namespace of its own."""
    script = tmp_path / "full.py"
    script.write_text(FULL.format())
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = f"mount -t tmpfs -o size=8m tmpfs {disk} && head -c 3M /dev/zero > {disk}/ballast"
    shell = f"{mount} && exec env PYTHONPATH={Path(__file__).parent} {sys.executable} {script} {disk}"
    probe = subprocess.run(["unshare", "-rm", "true"], capture_output=True, check=False)
    if probe.returncode:
        pytest.skip(f"no mount namespace here: {probe.stderr.decode().strip()}")
    done = subprocess.run(["unshare", "-rm", "sh", "-c", shell], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "recovered\n"), done.stderr


def test_what_does_not_fit_is_said_before_it_is_written(tmp_path: Path) -> None:
    spool = Spool.open(tmp_path, "front-0", segment_bytes=SMALL)
    made = make_intent(CLOCK)
    with pytest.raises(Unprocessable):
        spool.begin(b"\xdc" + bytes(20_000))
    with pytest.raises(Unprocessable):
        spool.begin(b"not an intent")
    with pytest.raises(Unprocessable):
        spool.end(made.id, b"x" * 65_536, made.key)
    with pytest.raises(Unprocessable):
        spool.end(made.id, b"x", b"short")
    spool.begin(intent.encode(made))
    assert drain_all(tmp_path)[0] == []


def test_after_a_failed_sync_nothing_is_promised_any_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = Spool.open(tmp_path, "front-0", segment_bytes=SMALL)
    record(spool)
    with monkeypatch.context() as m:
        m.setattr("os.fdatasync", lambda fd: (_ for _ in ()).throw(OSError(5, "Input/output error")))
        with pytest.raises(NotReady, match=r"ledger\.io"):
            spool.sync()
    for promise in (spool.sync, spool.check):
        with pytest.raises(NotReady, match=r"ledger\.io"):
            promise()
