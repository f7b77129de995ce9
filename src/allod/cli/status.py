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
    out.result(status, [*_head(status, out), "", *_services(status), *_checks(status, out)])
    return 0 if status.ready else NotReady.exit_code


def _head(status: NodeStatus, out: Out) -> list[str]:
    ready = out.paint("ready", "green") if status.ready else out.paint("not ready", "red")
    checkpoint = (
        f", checkpoint {iso(status.checkpoint_us)}" if status.checkpoint_us else ", no checkpoint yet"
    )
    return fields(
        [
            ("node", f"{status.origin} {ready}"),
            (
                "listens",
                f"{status.listen} ({status.workers} front worker{'s' if status.workers > 1 else ''})",
            ),
            ("since", f"{iso(status.started_us)}, version {status.version}"),
            ("ledger", f"{status.ledger_size} receipts, {status.spooled} on the way{checkpoint}"),
        ]
    )


def _services(status: NodeStatus) -> list[str]:
    header = ("MODEL", "KIND", "SITE", "STATE", "SEALED", "MEMORY", "RESTARTS", "ENGINE", "REASON")
    rows = [row for service in status.services for row in _replicas(service)]
    return table(header, rows) or ["serves nothing yet: allod run names models that fit this machine"]


def _replicas(service: ServiceView) -> list[tuple[object, ...]]:
    """One row per replica; a service without any still has one."""
    head = (service.model + (" (test model)" if service.test_model else ""), service.kind)
    rows: list[tuple[object, ...]] = []
    for r in service.replicas:
        sealed = "yes" if r.sealed else "no"
        rows.append((*head, r.site, r.state, sealed, size(r.rss_bytes), r.restarts, r.engine, r.reason))
    return rows or [(*head, "-", "no replica", "-", "-", "-", "-", "")]


def _checks(status: NodeStatus, out: Out) -> list[str]:
    lines = []
    for check in status.checks:
        if not check.ok:
            lines.append(f"{out.mark(False)}{check.name}: {check.detail}")
            if check.hint:
                lines.append(f"     next: {check.hint}")
    return ["", *lines] if lines else []
