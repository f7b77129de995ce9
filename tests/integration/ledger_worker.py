"""Processes that the kill tests start, and kill: a front worker that spools, a sequencer that integrates.

ledger_worker.py write HOME WORKER      begin, end, sync; prints what is durable: "ended <id>", "begun <id>"
ledger_worker.py sequence HOME          drains the spools into the log until killed
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from allod.clock import SystemClock
from allod.ledger import intent, statement
from allod.ledger.commitment import commit, key_check, new_key, new_receipt_id
from allod.ledger.drain import SpoolReader
from allod.ledger.intent import Intent
from allod.ledger.log import Log
from allod.ledger.spool import Spool
from allod.limits import SPOOL_SEGMENT_BYTES_MIN
from allod.signing import ED25519, MLDSA44, Signer, load_or_generate

ORIGIN = "node.example/ledger"


def signers(home: Path) -> list[Signer]:
    return [
        load_or_generate(home / "log.ed25519.key", ORIGIN, ED25519),
        load_or_generate(home / "log.mldsa44.key", ORIGIN, MLDSA44),
    ]


def make_intent(clock: SystemClock) -> Intent:
    key = new_key()
    return Intent(
        id=new_receipt_id(clock),
        action="chat",
        actor=commit(key, "actor", b"k"),
        categories=("personal",),
        data_class="confidential",
        endpoint="/v1/chat/completions",
        input=commit(key, "input", b"x"),
        input_bytes=1,
        key=key,
        key_check=key_check(key),
        model="m",
        organisation="o",
        origin=ORIGIN,
        policy="sha256:0",
        project="p",
        site="here",
        started_us=clock.now_us(),
    )


def write(home: Path, worker: str) -> None:
    """Each round begins 20 records and ends 15, so some stay open. What is printed is durable."""
    clock = SystemClock()
    spool = Spool.open(home / "spool", worker, segment_bytes=SPOOL_SEGMENT_BYTES_MIN)
    waiting: list[Intent] = []
    while True:
        spool.check()
        made = [make_intent(clock) for _ in range(20)]
        for one in made:
            spool.begin(intent.encode(one))
        waiting += made
        ending, waiting = waiting[:15], waiting[15:][-40:]
        for one in ending:
            spool.end(one.id, statement.encode(intent.interrupted(one, clock.now_us())), one.key)
        spool.sync()
        sys.stdout.write("".join(f"ended {one.id}\n" for one in ending))
        sys.stdout.write("".join(f"begun {one.id}\n" for one in made))
        sys.stdout.flush()


def sequence(home: Path) -> None:
    clock = SystemClock()
    log = Log.open(home / "ledger", signers(home), clock)
    reader = SpoolReader(home / "spool", clock)
    print("open", flush=True)
    while True:
        batch = reader.drain(log.cursors, 500)
        log.append(batch.entries, batch.cursors)
        reader.release(log.cursors)
        if not batch.entries:
            time.sleep(0.002)


if __name__ == "__main__":
    if sys.argv[1] == "write":
        write(Path(sys.argv[2]), sys.argv[3])
    else:
        sequence(Path(sys.argv[2]))
