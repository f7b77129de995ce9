"""`allod status`: whether the node answers, and what it serves. Exit code 3 where it is not ready."""

from __future__ import annotations

import argparse

from allod.api.ports import NodeStatus, ServiceView
from allod.cli.admin import Admin
from allod.cli.output import Out, fields, size, table
from allod.cli.parser import Verbs, home_of
from allod.clock import iso
from allod.errors import NotReady


def register(verbs: Verbs) -> None:
    verbs.add("status", "show whether the node is ready and what it serves", act)


def act(args: argparse.Namespace, out: Out) -> int:
    status = Admin(home_of(args)).get("/admin/v1/status", NodeStatus)
    out.result(status, [*_head(status, out), "", *_services(status), *_wrong(status, out)])
    return 0 if status.ready else NotReady.exit_code


def _head(status: NodeStatus, out: Out) -> list[str]:
    ready = out.paint("ready", "green") if status.ready else out.paint("not ready", "red")
    workers = f"{status.workers} front worker{'s' if status.workers > 1 else ''}"
    waiting = f", {status.spooled} on the way" if status.spooled else ""
    integrated = f"checkpoint of {iso(status.checkpoint_us)}" if status.checkpoint_us else "no checkpoint yet"
    about = fields(
        [
            ("console", f"{status.listen}/console"),
            ("node", f"{status.origin}, version {status.version}, {workers}, since {iso(status.started_us)}"),
            ("ledger", f"{status.ledger_size} receipts{waiting}, {integrated}"),
        ]
    )
    return [f"{ready}: {status.listen}", *(f"  {line}" for line in about)]


def _services(status: NodeStatus) -> list[str]:
    header = ("MODEL", "KIND", "SITE", "STATE", "SEALED", "MEMORY", "ENGINE")
    rows = [row for service in status.services for row in _replicas(service)]
    return table(header, rows) or ["serves nothing yet: allod run names models that fit this machine"]


def _replicas(service: ServiceView) -> list[tuple[object, ...]]:
    """One row per replica; a service without any still has one."""
    head = (service.model + (" (test model)" if service.test_model else ""), service.kind)
    rows: list[tuple[object, ...]] = []
    for r in service.replicas:
        state = r.state + (f" ({r.restarts} restarts)" if r.restarts else "")
        sealed = "yes" if r.sealed else "no"
        rows.append((*head, r.site, state, sealed, size(r.rss_bytes), r.engine or "-"))
    return rows or [(*head, "-", "no replica", "-", "-", "-")]


def _wrong(status: NodeStatus, out: Out) -> list[str]:
    """What fails, each with its next step; a replica's reason only where no check says it already."""
    failing = [check for check in status.checks if not check.ok]
    lines = []
    for check in failing:
        lines.append(f"{out.mark(False)}{check.name}: {check.detail}")
        if check.hint:
            lines.append(f"     next: {check.hint}")
    told = " ".join(check.detail for check in failing)
    reasons = {(r.id, r.reason): r for s in status.services for r in s.replicas if r.reason}
    lines += [
        f"{id_} is {r.state}: {reason}"
        for (id_, reason), r in reasons.items()
        if not any(part and part in told for part in (reason, reason.partition(" (")[0]))
    ]
    return ["", *lines] if lines else []
