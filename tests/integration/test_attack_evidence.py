"""Attempts on the evidence: to read what was erased, to have a secret written down, to show another past."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "ledger"))

from ledger_records import make_entry, make_intent, make_leaf, make_signers

from allod.app.sequencer import Sequencer
from allod.clock import SystemClock
from allod.errors import Integrity, NotFound
from allod.ledger import intent as intents
from allod.ledger.drain import SpoolReader
from allod.ledger.log import Log
from allod.ledger.spool import Spool

NOTE = b"a private note, kept beside the key"


def holding(root: Path, *secrets: bytes) -> list[str]:
    """The files below `root` in which one of the secrets stands."""
    found = [p for p in root.rglob("*") if p.is_file() and any(s in p.read_bytes() for s in secrets)]
    return sorted(str(p.relative_to(root)) for p in found)


async def test_an_erased_key_is_nowhere_below_the_home_any_more(tmp_path: Path) -> None:
    # A worker's present segment holds every key that it wrote since the last rotation, which may be weeks.
    clock = SystemClock()
    spool = Spool.open(tmp_path / "spool", "0")
    written = [make_intent(clock, n) for n in range(5)]
    spool.begin(intents.encode(make_intent(clock, 99)))  # one that goes on for the whole test
    for one in written:
        spool.begin(intents.encode(one))
        spool.end(one.id, make_leaf(one, clock), one.key, NOTE if one is written[2] else b"")
    spool.sync()
    log = Log.open(tmp_path / "ledger", make_signers(), clock)
    sequencer = Sequencer(log, tmp_path / "spool", clock, interval_s=0.01)
    sequencer.start()
    try:
        while log.size < len(written):
            await asyncio.sleep(0.01)
        erased, kept = written[2], written[3]
        assert len(holding(tmp_path, erased.key)) == 2, "the key store and the spool"
        await sequencer.ask(lambda log: log.erase(erased.id, by="somebody"))
        assert holding(tmp_path, erased.key, NOTE) == []
        assert len(holding(tmp_path, kept.key)) == 2, "the others' keys are where they were"
    finally:
        sequencer.stop()
    # A later reader sees whole records all the same: neither damage nor a record twice.
    log = Log.open(tmp_path / "ledger", log._signers, clock)
    try:
        batch = SpoolReader(tmp_path / "spool", clock).drain({})
        assert (len(batch.entries), batch.damage) == (len(written), ())
        size = log.size
        assert log.append(batch.entries, batch.cursors) == size
        with pytest.raises(NotFound, match="destroyed"):
            log.opening(erased.id)
        assert log.opening(kept.id).key == kept.key
        spool.end(make_intent(clock, 7).id, make_leaf(written[0], clock), bytes(range(32)))
    finally:
        log.close()
        spool.close()


def test_the_same_content_twice_leaves_nothing_in_common(tmp_path: Path) -> None:
    clock = SystemClock()
    one, two = make_intent(clock, 1), make_intent(clock, 1)
    assert one.key != two.key
    assert {one.input, one.actor, one.key_check}.isdisjoint({two.input, two.actor, two.key_check})


def test_a_ledger_set_back_in_part_is_refused_by_the_node_itself(tmp_path: Path) -> None:
    clock = SystemClock()
    signers = make_signers()
    root = tmp_path / "ledger"
    log = Log.open(root, signers, clock)
    log.append([make_entry(clock, n) for n in range(3)])
    log.close()
    subprocess.run(["cp", "-a", str(root), str(tmp_path / "older")], check=True)
    log = Log.open(root, signers, clock)
    log.append([make_entry(clock, n) for n in range(3, 6)])
    log.close()
    for name in ("state", "tile"):  # all but the checkpoint
        subprocess.run(["rm", "-rf", str(root / name)], check=True)
        subprocess.run(["cp", "-a", str(tmp_path / "older" / name), str(root / name)], check=True)
    with pytest.raises(Integrity, match="checkpoint has 6"):
        Log.open(root, signers, clock)
