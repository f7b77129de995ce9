"""The ledger's figures beside the physical limits of the same machine in the same run.

    python bench/ledger.py [--dir DIR] [--receipts N] [--json]

Everything runs in this one process; "per s" is wall time, waiting for the disk included.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from allod.clock import SystemClock
from allod.ledger import intent, statement
from allod.ledger.commitment import commit, key_check, new_key, new_receipt_id
from allod.ledger.drain import SpoolReader
from allod.ledger.fsck import fsck
from allod.ledger.intent import Intent
from allod.ledger.log import Log
from allod.ledger.segment import Entry
from allod.ledger.spool import Spool
from allod.ledger.verify import ReceiptVerifier
from allod.signing import ED25519, MLDSA44, FileSigner

ORIGIN = "bench.example/ledger"
CLOCK = SystemClock()
VERIFIED = 10_000
SYNC_EVERY = (
    64  # records per group commit: what arrives within one fdatasync at about 20,000 records a second
)


def make(n: int) -> tuple[Intent, bytes, Entry]:
    key = new_key()
    made = Intent(
        id=new_receipt_id(CLOCK),
        action="chat",
        actor=commit(key, "actor", b"k"),
        categories=("personal", "health"),
        data_class="confidential",
        endpoint="/v1/chat/completions",
        input=commit(key, "input", b"%d" % n),
        input_bytes=4096,
        key=key,
        key_check=key_check(key),
        model="mistral-small",
        model_digest="sha256:" + "a" * 64,
        engine="llama.cpp",
        engine_digest="sha256:" + "b" * 64,
        organisation="hospital",
        origin=ORIGIN,
        policy="sha256:" + "c" * 64,
        project="ward",
        replica="mistral-small-1",
        rules=("local-always", "health-stays"),
        sampling={"seed": "7", "temperature": "0.2"},
        site="here",
        site_facts="sha256:" + "d" * 64,
        started_us=CLOCK.now_us(),
    )
    leaf = statement.encode(intent.interrupted(made, CLOCK.now_us()))
    return made, intent.encode(made), Entry(made.id, leaf, made.key)


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Wall and CPU seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def raw_limits(folder: Path, leaves: list[bytes]) -> tuple[float, float]:
    """Seconds for one sha256 over each leaf, and for writing all of them to one file with one fdatasync."""
    hashing, _ = timed(lambda: [hashlib.sha256(leaf).digest() for leaf in leaves])
    data = b"".join(leaves)

    def write() -> None:
        fd = os.open(folder / "raw", os.O_WRONLY | os.O_CREAT, 0o600)
        os.write(fd, data)
        os.fdatasync(fd)
        os.close(fd)

    writing, _ = timed(write)
    return hashing, writing


def bench_spool(folder: Path, records: list[tuple[Intent, bytes, Entry]]) -> list[tuple[str, float, str]]:
    """CPU of begin + end without and with group commits, and what one group commit takes."""
    spool = Spool.open(folder / "dry", "front-0")

    def put(into: Spool, batch: list[tuple[Intent, bytes, Entry]]) -> None:
        for _, encoded, entry in batch:
            into.begin(encoded)
            into.end(entry.id, entry.leaf, entry.key)

    _, cpu = timed(lambda: put(spool, records))
    spool.close()
    spool = Spool.open(folder / "spool", "front-0")
    syncs: list[float] = []

    def durable() -> None:
        for at in range(0, len(records), SYNC_EVERY):
            put(spool, records[at : at + SYNC_EVERY])
            syncs.append(timed(spool.sync)[0])

    wall, _ = timed(durable)
    spool.close()
    return [
        ("spool begin + end, CPU per record", cpu / len(records) * 1e6, "µs"),
        (f"spooled with a sync every {SYNC_EVERY} records", len(records) / wall, "per s"),
        ("one group commit, median", sorted(syncs)[len(syncs) // 2] * 1e3, "ms"),
    ]


def integrate(folder: Path, log: Log) -> None:
    reader = SpoolReader(folder / "spool", CLOCK)
    while (batch := reader.drain(log.cursors)).entries or dict(batch.cursors) != dict(log.cursors):
        log.append(batch.entries, batch.cursors)
        reader.release(log.cursors)


def run(folder: Path, count: int) -> list[tuple[str, float, str]]:
    records = [make(n) for n in range(count)]
    leaves = [entry.leaf for _, _, entry in records]
    hashing, writing = raw_limits(folder, leaves)
    rows: list[tuple[str, float, str]] = [
        ("leaf, mean", sum(map(len, leaves)) / count, "bytes"),
        ("limit: sha256 of the same leaves", count / hashing, "per s"),
        ("limit: write + fdatasync of the same leaves", count / writing, "per s"),
        *bench_spool(folder, records),
    ]
    signers = [FileSigner.generate(ORIGIN, t) for t in (ED25519, MLDSA44)]
    log = Log.open(folder / "ledger", signers, CLOCK)
    wall, cpu = timed(lambda: integrate(folder, log))
    assert log.size == count
    rows += [
        ("read, appended, integrated, synced, signed", count / wall, "per s"),
        ("  the same per CPU second", count / cpu, "per s"),
    ]
    picked = range(0, count, max(1, count // VERIFIED))[:VERIFIED]
    proofs = [(log.proof(i).encode(), log.leaf(i)) for i in picked]
    verifier = ReceiptVerifier(log.vkeys)
    wall, _ = timed(lambda: [verifier.verify(proof, leaf) for proof, leaf in proofs])
    rows.append((f"{len(proofs):,} receipts verified offline", wall, "s"))
    wall, _ = timed(
        lambda: print(*fsck(folder / "ledger", log.vkeys).findings, sep="\n", end="", file=sys.stderr)
    )
    rows.append((f"whole ledger of {count:,} checked (fsck)", wall, "s"))
    log.close()
    log = Log.open(folder / "ledger", signers, CLOCK)
    entries = [make(n)[2] for n in range(200)]
    one_by_one, _ = timed(lambda: [log.append([entry]) for entry in entries])
    rows.append(("one append of a single receipt", one_by_one / len(entries) * 1e3, "ms"))
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--dir", type=Path, help="where to write; a folder on the disk that is to be measured"
    )
    parser.add_argument("--receipts", type=int, default=100_000)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # one core, as the figures say
    folder = Path(tempfile.mkdtemp(prefix="allod-bench-", dir=options.dir))
    try:
        rows = run(folder, options.receipts)
    finally:
        shutil.rmtree(folder)
    if options.json:
        print(json.dumps([{"what": what, "value": value, "unit": unit} for what, value, unit in rows]))
        return 0
    for what, value, unit in rows:
        print(f"{what:<46} {value:>14,.{0 if value >= 100 else 2}f} {unit}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
