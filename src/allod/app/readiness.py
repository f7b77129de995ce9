"""What is true of the node right now, line by line. Ready means: an exchange would be carried and receipted.

A database that is away or a service that failed is shown and does not end readiness: the path does not need
the one, and the other answers for itself.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence

from allod.api.ports import Check
from allod.app.sequencer import Sequencer
from allod.app.services import Failed
from allod.config import Home
from allod.errors import AllodError
from allod.front.snapshot import Snapshot
from allod.limits import DISK_FREE_BYTES_MIN, MIB
from allod.runtime.sandbox import SandboxReport
from allod.runtime.supervisor import ReplicaState

NEEDED = frozenset({"snapshot", "front workers", "ledger", "disk"})


def is_ready(checks: Sequence[Check]) -> bool:
    return all(c.ok for c in checks if c.name in NEEDED)


def checks(
    *,
    fronts: int,
    workers: int,
    snapshot: Snapshot | None,
    rules_failure: AllodError | None,
    database_failure: AllodError | None,
    sequencer: Sequencer,
    witnesses: Mapping[str, AllodError],
    sandbox: SandboxReport,
    states: Mapping[str, ReplicaState],
    failed: Sequence[Failed],
    home: Home,
) -> tuple[Check, ...]:
    lines = [
        Check(
            name="snapshot",
            ok=snapshot is not None,
            detail=f"version {snapshot.version}" if snapshot else "none: every request is answered with 503",
        ),
        _failure("policy and sites", rules_failure, "read, and in force"),
        Check(name="front workers", ok=fronts > 0, detail=f"{fronts} of {workers} connected"),
        _ledger(sequencer),
        _disk(home),
        _failure("database", database_failure, "answers"),
        Check(
            name="sandbox",
            ok=sandbox.sealed,
            detail=f"bubblewrap {sandbox.version}" if sandbox.sealed else sandbox.problem,
            hint=sandbox.hint,
        ),
    ]
    lines += [_failure(f"witness {url}", e, "") for url, e in witnesses.items()]
    lines += [_service(f) for f in failed]
    lines += [_replica(s) for s in states.values() if s.state != "ready"]
    return tuple(lines)


def _failure(name: str, failure: AllodError | None, fine: str) -> Check:
    if failure is None:
        return Check(name=name, ok=True, detail=fine)
    return Check(name=name, ok=False, detail=f"[{failure.code}] {failure.message}", hint=failure.hint)


def _ledger(sequencer: Sequencer) -> Check:
    if sequencer.failure is not None:
        return _failure("ledger", sequencer.failure, "")
    if sequencer.damage:
        first = sequencer.damage[0]
        return Check(
            name="ledger",
            ok=False,
            detail=f"damaged spool record: {first.path} at byte {first.offset}: {first.reason}",
            hint="keep the file, then look at the disk: allod doctor",
        )
    return Check(name="ledger", ok=True, detail="integrates and signs")


def _disk(home: Home) -> Check:
    free = shutil.disk_usage(home.root).free
    return Check(
        name="disk",
        ok=free >= DISK_FREE_BYTES_MIN,
        detail=f"{free // MIB} MiB free",
        hint="" if free >= DISK_FREE_BYTES_MIN else f"free space on the volume of {home.root}",
    )


def _service(failed: Failed) -> Check:
    return _failure(f"service {failed.model}", failed.error, "")


def _replica(state: ReplicaState) -> Check:
    detail = state.state + (f": {state.reason}" if state.reason else "")
    return Check(name=f"replica {state.id}", ok=state.state == "starting", detail=detail)
