"""kill -9 of writers and the sequencer, many times, under load: every durable record is in the tree once."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from ledger_worker import signers

from allod.clock import SystemClock
from allod.ledger.drain import SpoolReader
from allod.ledger.erasure import read_leaf
from allod.ledger.fsck import fsck
from allod.ledger.log import Log
from allod.ledger.statement import Statement

SCRIPT = Path(__file__).parent / "ledger_worker.py"


def start(*args: str, stdout: Path) -> subprocess.Popen[bytes]:
    with stdout.open("ab") as out:
        return subprocess.Popen([sys.executable, str(SCRIPT), *args], stdout=out)


def kill(process: subprocess.Popen[bytes]) -> None:
    assert process.poll() is None, "it died on its own"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()


def wait_for(path: Path, growth: int) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if path.exists() and path.stat().st_size >= growth:
            return
        time.sleep(0.005)
    raise AssertionError(f"{path} did not grow")


def promises(home: Path) -> tuple[set[str], set[str]]:
    """Ids the writers saw durable as ended, and as begun; a killed one's last, torn line is no promise."""
    ended, begun = set(), set()
    for path in home.glob("*.out"):
        for line in path.read_text().split("\n")[:-1]:
            word, _, id_ = line.partition(" ")
            if len(id_) == 28:
                (ended if word == "ended" else begun).add(id_)
    return ended, begun


def settle(home: Path) -> tuple[Log, Counter[str], dict[str, str]]:
    """Integrates what is left; returns the log, how often each id is in it, and each id's outcome."""
    clock = SystemClock()
    log = Log.open(home / "ledger", signers(home), clock)
    reader = SpoolReader(home / "spool", clock)
    while True:
        batch = reader.drain(log.cursors)
        assert batch.damage == ()
        before = dict(log.cursors)
        log.append(batch.entries, batch.cursors)
        reader.release(log.cursors)
        if not batch.entries and dict(log.cursors) == before:
            break
    outcomes = {}
    counts: Counter[str] = Counter()
    for _, leaf in log.latest(log.size):
        statement = read_leaf(leaf)
        assert isinstance(statement, Statement)
        counts[statement.id] += 1
        outcomes[statement.id] = statement.outcome
    return log, counts, outcomes


def test_no_record_is_lost_or_doubled_by_kills(tmp_path: Path) -> None:
    rng = random.Random(7)
    keys = signers(tmp_path)
    assert keys
    sequencer_out = tmp_path / "sequencer.log"
    sequencer = start("sequence", str(tmp_path), stdout=sequencer_out)
    writers = {}
    for n in range(2):
        writers[n] = start("write", str(tmp_path), f"front-{n}", stdout=tmp_path / f"{n}.out")
    for n in writers:
        wait_for(tmp_path / f"{n}.out", 1)
    generation = len(writers)
    for _ in range(14):
        time.sleep(rng.uniform(0.02, 0.25))
        kill(sequencer)
        victim = rng.choice(sorted(writers))
        kill(writers.pop(victim))
        writers[generation] = start(
            "write", str(tmp_path), f"front-{generation}", stdout=tmp_path / f"{generation}.out"
        )
        sequencer = start("sequence", str(tmp_path), stdout=sequencer_out)
        wait_for(tmp_path / f"{generation}.out", 1)
        generation += 1
    time.sleep(0.3)
    for process in (*writers.values(), sequencer):
        kill(process)

    ended, begun = promises(tmp_path)
    log, counts, outcomes = settle(tmp_path)
    assert len(ended) > 1000
    assert [i for i, n in counts.items() if n != 1] == []
    assert ended - counts.keys() == set()
    assert begun - counts.keys() == set(), "an exchange that was begun left no trace"
    assert set(outcomes.values()) == {"interrupted"}
    assert list((tmp_path / "spool").iterdir()) == []
    assert fsck(tmp_path / "ledger", log.vkeys).findings == ()
    log.close()


def test_a_killed_worker_leaves_one_interrupted_receipt_per_open_exchange(tmp_path: Path) -> None:
    out = tmp_path / "w.out"
    writer = start("write", str(tmp_path), "front", stdout=out)
    wait_for(out, 5000)
    kill(writer)
    ended, begun = promises(tmp_path)
    log, counts, _ = settle(tmp_path)
    assert counts.keys() >= ended | begun
    size = log.size
    log.close()
    log, counts, _ = settle(tmp_path)
    assert log.size == size
    assert max(counts.values()) == 1
