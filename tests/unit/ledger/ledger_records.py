"""Records and keys for the ledger's tests: real ids, keys and commitments over made-up exchanges."""

from __future__ import annotations

from pathlib import Path

from allod.clock import Clock, ManualClock
from allod.ledger import intent, statement
from allod.ledger.commitment import commit, key_check, new_key, new_receipt_id
from allod.ledger.intent import Intent
from allod.ledger.log import Log
from allod.ledger.segment import Entry
from allod.signing import ED25519, MLDSA44, FileSigner

ORIGIN = "node.example/ledger"


def make_intent(clock: Clock, n: int = 0) -> Intent:
    key = new_key()
    return Intent(
        id=new_receipt_id(clock),
        action="chat",
        actor=commit(key, "actor", b"key-7"),
        categories=("personal",),
        data_class="confidential",
        endpoint="/v1/chat/completions",
        input=commit(key, "input", b"question %d" % n),
        input_bytes=10,
        key=key,
        key_check=key_check(key),
        model="m",
        organisation="hospital",
        origin=ORIGIN,
        policy="sha256:" + "0" * 64,
        project="ward",
        replica="r1",
        rules=("r-1",),
        site="here",
        started_us=clock.now_us(),
    )


def make_leaf(made: Intent, clock: Clock) -> bytes:
    return statement.encode(intent.interrupted(made, clock.now_us()))


def make_entry(clock: Clock, n: int = 0, opening: bytes = b"") -> Entry:
    made = make_intent(clock, n)
    return Entry(made.id, make_leaf(made, clock), made.key, opening)


def make_signers() -> list[FileSigner]:
    return [FileSigner.generate(ORIGIN, ED25519), FileSigner.generate(ORIGIN, MLDSA44)]


def make_log(root: Path, count: int, signers: list[FileSigner] | None = None) -> Log:
    clock = ManualClock()
    log = Log.open(root, signers or make_signers(), clock)
    log.append([make_entry(clock, n, b"note" if n % 7 == 0 else b"") for n in range(count)])
    return log
