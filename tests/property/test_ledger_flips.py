"""Any changed byte anywhere in a ledger folder is found, and the finding names the file."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from allod.clock import ManualClock
from allod.ledger import fsck as fs
from allod.ledger import statement
from allod.ledger.commitment import commit, key_check, new_key, new_receipt_id
from allod.ledger.intent import Intent, interrupted
from allod.ledger.log import Log
from allod.ledger.segment import Entry
from allod.ledger.witness import Witness, cosign
from allod.signing import COSIGNATURE, ED25519, MLDSA44, FileSigner, VKey

ORIGIN = "node.example/ledger"


def entry(clock: ManualClock, n: int) -> Entry:
    key = new_key()
    made = Intent(
        id=new_receipt_id(clock),
        action="chat",
        actor=commit(key, "actor", b"k"),
        categories=(),
        data_class="internal",
        endpoint="/v1/chat/completions",
        input=commit(key, "input", b"%d" % n),
        input_bytes=n,
        key=key,
        key_check=key_check(key),
        model="m",
        organisation="o",
        origin=ORIGIN,
        policy="sha256:0",
        project="p",
        started_us=clock.now_us(),
    )
    note = b"a private note" if n % 5 == 0 else b""
    return Entry(made.id, statement.encode(interrupted(made, clock.now_us())), key, note)


class Ledger:
    def __init__(self, root: Path, log: Log, witness: VKey) -> None:
        self.root = root
        self.vkeys = log.vkeys
        self.witness = witness
        self.files = {
            str(p.relative_to(root)): p.read_bytes()
            for p in root.rglob("*")
            if p.is_file() and p.stat().st_size
        }

    def check(self) -> fs.Report:
        return fs.fsck(self.root, self.vkeys, [self.witness])


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ledger]:
    """700 leaves in full and partial tiles, id files, an erased record, a cosigned checkpoint."""
    with pytest.MonkeyPatch.context() as m:
        for module in ("ids", "keys", "fsck", "log"):
            m.setattr(f"allod.ledger.{module}.INDEX_CHUNK_LEAVES", 256)
        clock = ManualClock()
        root = tmp_path_factory.mktemp("ledger")
        log = Log.open(root, [FileSigner.generate(ORIGIN, t) for t in (ED25519, MLDSA44)], clock)
        log.append([entry(clock, n) for n in range(90)])
        log.append([entry(clock, n) for n in range(600)], {"front-1-2": 77})
        signer = FileSigner.generate("witness.example", COSIGNATURE)
        witness = Witness(tmp_path_factory.mktemp("witness"), [signer], log.vkeys, clock)
        note = cosign(lambda b: witness.handle(b)[:2], log.checkpoint(), [signer.vkey], 0, log.consistency)
        log.add_cosignatures(note, [signer.vkey])
        log.append([entry(clock, n) for n in range(9)])
        log.erase(Log.leaf(log, 33)[slice(*_id_span(log.leaf(33)))].decode(), by="officer")
        made = Ledger(root, log, signer.vkey)
        assert made.check().findings == ()
        yield made


def _id_span(leaf: bytes) -> tuple[int, int]:
    at = leaf.index(b'"id":"') + 6
    return at, at + 28


def flip(ledger: Ledger, name: str, offset: int, mask: int) -> fs.Report:
    path = ledger.root / name
    whole = ledger.files[name]
    changed = bytearray(whole)
    changed[offset] ^= mask
    path.write_bytes(bytes(changed))
    try:
        return ledger.check()
    finally:
        path.write_bytes(whole)


@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_flipped_byte_is_named(ledger: Ledger, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(ledger.files)))
    offset = data.draw(st.integers(0, len(ledger.files[name]) - 1))
    mask = data.draw(st.integers(1, 255))
    report = flip(ledger, name, offset, mask)
    assert name in {f.path for f in report.findings}, (name, offset, mask, report)


def test_every_kind_of_file_is_covered_and_blamed_alone(ledger: Ledger) -> None:
    """One flip in the middle of each file: a finding for that file, and none for a file that is sound."""
    kinds = {n.split("/")[0] for n in ledger.files}
    assert kinds == {
        "state",
        "checkpoint",
        "checkpoint.cosigned",
        "log.vkeys",
        "tile",
        "keys",
        "openings",
        "ids",
    }
    rng = random.Random(1)
    for name, content in ledger.files.items():
        report = flip(ledger, name, rng.randrange(len(content)), 1 << rng.randrange(8))
        blamed = {f.path for f in report.findings}
        assert name in blamed, (name, report)
        assert all(b.split(".p/")[0] == name.split(".p/")[0] for b in blamed), (name, blamed)


def test_missing_truncated_and_added_files_are_named(ledger: Ledger) -> None:
    for name, content in ledger.files.items():
        path = ledger.root / name
        path.write_bytes(content[:-1])
        assert name in {f.path for f in ledger.check().findings}
        path.unlink()
        cosigned_or_old = name == "checkpoint.cosigned" or (".p/" in name and _superseded(ledger, name))
        assert cosigned_or_old or name in {f.path for f in ledger.check().findings}, name
        path.write_bytes(content)
    stray = ledger.root / "tile/0/note.txt"
    stray.write_bytes(b"x")
    assert [f.path for f in ledger.check().findings] == ["tile/0/note.txt"]
    stray.unlink()
    assert ledger.check().ok


def _superseded(ledger: Ledger, name: str) -> bool:
    """An older partial tile: the log may delete it."""
    tile, width = name.split(".p/")
    return any(
        n != name and n.startswith(f"{tile}.p/") and int(n.split("/")[-1]) > int(width) for n in ledger.files
    )
