"""Receipts and the ledger for those who hold an API key: their own project's, or for auditors
all of the organisation's.

What may not be seen does not exist: 404, so that receipt ids tell nothing to others.
"""

from __future__ import annotations

import re

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from allod.api.ports import NodePort, ReceiptFormat, ReceiptView
from allod.api.wire import caller_of, json_response
from allod.errors import Denied, NotFound, Usage
from allod.identity import roles
from allod.identity.caller import Caller, Role

READS_ORGANISATION = frozenset({Role.OWNER, Role.ADMIN, Role.AUDITOR})
MEDIA: dict[ReceiptFormat, str] = {
    "tlog-proof": "text/plain; charset=utf-8",
    "cose": "application/cose",
    "json": "application/json",
}

_RECEIPT_ID = re.compile(r"r-[0-9A-Za-z]{26}")
# C2SP tlog-tiles: levels 0-63 or "entries", the index in groups of three digits, partial widths 1-255.
_TILE = re.compile(r"tile/(?:entries|[0-5]?[0-9]|6[0-3])/(?:x[0-9]{3}/){0,6}[0-9]{3}(?:\.p/[1-9][0-9]{0,2})?")


def may_read(caller: Caller, organisation: str, project: str) -> bool:
    """Whether `caller` may read what belongs to that organisation and project."""
    if caller.key_id == roles.OPERATOR:
        return True
    if caller.organisation != organisation:
        return False
    if caller.role in READS_ORGANISATION:
        return True
    return caller.role is Role.DEVELOPER and caller.project == project


async def visible(node: NodePort, caller: Caller, receipt_id: str) -> ReceiptView:
    """The receipt, where `caller` may read it. Raises NotFound `receipt.unknown` otherwise."""
    absent = NotFound("receipt.unknown", f"there is no receipt {receipt_id[:40]!r} that you may read")
    if not _RECEIPT_ID.fullmatch(receipt_id):
        raise absent
    try:
        view = await node.receipt(receipt_id)
    except NotFound:
        raise absent from None
    if not may_read(caller, view.statement.organisation, view.statement.project):
        raise absent
    return view


def form_of(request: Request) -> ReceiptFormat:
    """The `form` query parameter. Raises Usage `receipt.form`."""
    wanted = request.query_params.get("form", "tlog-proof")
    for form in MEDIA:
        if form == wanted:
            return form
    raise Usage(
        "receipt.form", f"there is no receipt form {wanted[:40]!r}", hint=f"use one of: {', '.join(MEDIA)}"
    )


async def receipt(request: Request) -> Response:
    caller = caller_of(request)
    return json_response(await visible(request.app.state.node, caller, request.path_params["id"]))


async def receipt_file(request: Request) -> Response:
    caller, form = caller_of(request), form_of(request)
    node: NodePort = request.app.state.node
    view = await visible(node, caller, request.path_params["id"])
    content = await node.receipt_file(view.statement.id, form)
    name = f'attachment; filename="{view.statement.id}.{form}"'
    return Response(content, headers={"content-disposition": name}, media_type=MEDIA[form])


async def checkpoint(request: Request) -> Response:
    _auditing(caller_of(request))
    node: NodePort = request.app.state.node
    headers = {"cache-control": "no-store"}
    return Response(await node.checkpoint(), headers=headers, media_type="text/plain; charset=utf-8")


async def tile(request: Request) -> Response:
    _auditing(caller_of(request))
    path = request.path_params["path"]
    if path == "checkpoint":
        return await checkpoint(request)
    if not _TILE.fullmatch(path):
        raise NotFound(
            "ledger.path", "the ledger has no such file", hint="paths are those of C2SP tlog-tiles"
        )
    node: NodePort = request.app.state.node
    if path.startswith("tile/entries/"):
        await _alone(node, caller_of(request))
    headers = {"cache-control": "private, max-age=31536000, immutable"}
    return Response(await node.ledger_file(path), headers=headers, media_type="application/octet-stream")


def _auditing(caller: Caller) -> None:
    if caller.role not in READS_ORGANISATION:
        raise Denied(
            "role.auditor",
            "reading the ledger itself takes an auditor's key",
            hint="allod key create --role auditor",
        )


async def _alone(node: NodePort, caller: Caller) -> None:
    """Hash tiles tell nothing, but an entry names its organisation: those are one organisation's to read."""
    organisations = {project.organisation for project in await node.list_projects(organisation=None)}
    if caller.key_id != roles.OPERATOR and organisations - {caller.organisation}:
        raise Denied(
            "ledger.shared",
            "this ledger also holds entries of other organisations",
            hint="verify single receipts with /v1/receipts/{id}/file, or ask the operator for the tiles",
        )


def routes() -> list[Route]:
    return [
        Route("/v1/receipts/{id}", receipt),
        Route("/v1/receipts/{id}/file", receipt_file),
        Route("/v1/checkpoint", checkpoint),
        Route("/v1/ledger/{path:path}", tile),
    ]
