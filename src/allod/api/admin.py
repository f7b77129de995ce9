"""The administrative API under /admin/v1: what the `allod` command, the console and scripts ask of a node.

Who may what: the node's operator everything; owners and admins their organisation; auditors read all of their
organisation and change nothing; developers read their own project; service keys nothing. What another
organisation owns does not exist (404).
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from allod import limits
from allod.api import admin_values as values
from allod.api import problems, receipts, wire
from allod.api.ports import Inner, KeyView, NodePort, ProjectView
from allod.errors import Denied, NotFound, Usage
from allod.identity import roles
from allod.identity.caller import Caller, Role
from allod.identity.roles import Target
from allod.policy.decision import Ask

T = TypeVar("T", bound=msgspec.Struct)

MANAGERS = frozenset({Role.OWNER, Role.ADMIN})
READERS = receipts.READS_ORGANISATION | {Role.DEVELOPER}


async def status(request: Request) -> Response:
    _reader(request)
    return wire.json_response(await _node(request).status())


async def sites(request: Request) -> Response:
    _reader(request)
    return wire.json_response(await _node(request).sites())


async def explain(request: Request) -> Response:
    caller = _reader(request)
    wanted = await _body(request, values.Explain)
    organisation = wanted.organisation or caller.organisation
    if not receipts.may_read(caller, organisation, wanted.project):
        raise _absent("project", wanted.project)
    ask = Ask(
        organisation=organisation,
        project=wanted.project,
        role=(wanted.role or caller.role).value,
        action=wanted.action,
        model=wanted.model,
        data_class=values.data_class(wanted.data_class),
        categories=values.categories(wanted.categories),
    )
    return wire.json_response(await _node(request).explain(ask, wanted.language))


async def reload(request: Request) -> Response:
    _manager(request)
    return wire.json_response(values.Reloaded(version=await _node(request).reload()))


async def list_keys(request: Request) -> Response:
    caller = _reader(request)
    keys = await _node(request).list_keys(organisation=_scope(caller))
    return wire.json_response([key for key in keys if roles.may(caller, "key.list", _of_key(key)).allowed])


async def create_key(request: Request) -> Response:
    caller = wire.caller_of(request)
    wanted = await _body(request, values.NewKeyOf)
    project = await _project(request, caller, wanted.project)
    target = Target(organisation=project.organisation, project=project.id, role=wanted.role)
    roles.require(caller, "key.create", target)
    made = await _node(request).create_key(
        by=caller,
        project=wanted.project,
        role=wanted.role,
        label=wanted.label,
        lifetime_days=wanted.lifetime_days,
    )
    return wire.json_response(made, 201)


async def revoke_key(request: Request) -> Response:
    caller = wire.caller_of(request)
    key_id = request.path_params["id"]
    keys = {key.key_id: key for key in await _node(request).list_keys(organisation=_scope(caller))}
    if key_id not in keys:
        raise _absent("key", key_id)
    roles.require(caller, "key.revoke", _of_key(keys[key_id]))
    return wire.json_response(await _node(request).revoke_key(key_id, by=caller))


async def list_projects(request: Request) -> Response:
    caller = _reader(request)
    projects = await _node(request).list_projects(organisation=_scope(caller))
    seen = [p for p in projects if roles.may(caller, "project.list", _of_project(p)).allowed]
    return wire.json_response(seen)


async def create_project(request: Request) -> Response:
    caller = wire.caller_of(request)
    wanted = await _body(request, values.NewProject)
    organisation = wanted.organisation or caller.organisation
    if organisation != caller.organisation and not _operator(caller):
        raise _absent("organisation", organisation)
    project = ProjectView(
        id=wanted.id,
        organisation=organisation,
        default_class=values.data_class(wanted.default_class),
        floor_class=values.data_class(wanted.floor_class),
        categories=tuple(sorted(values.categories(wanted.categories))),
    )
    roles.require(caller, "project.create", _of_project(project))
    if project.default_class < project.floor_class:
        raise Usage("class.below-floor", "a project's default class cannot be below its floor")
    return wire.json_response(await _node(request).create_project(project, by=caller), 201)


async def create_organisation(request: Request) -> Response:
    caller = wire.caller_of(request)
    roles.require(caller, "organisation.create", Target())
    wanted = await _body(request, values.NewOrganisation)
    made = await _node(request).create_organisation(wanted.name, by=caller)
    return wire.json_response(values.Created(id=made), 201)


async def exchanges(request: Request) -> Response:
    caller = _reader(request)
    project = request.query_params.get("project")
    if caller.role is Role.DEVELOPER:
        if project not in (None, caller.project):
            raise _absent("project", str(project))
        project = caller.project
    found = await _node(request).exchanges(
        organisation=_scope(caller),
        project=project,
        limit=_number(request, "limit", 50, at_least=1, at_most=limits.EXCHANGES_PER_PAGE_MAX),
        before=_number(request, "before", None, at_least=0, at_most=2**62),
    )
    return wire.json_response(found)


async def receipt(request: Request) -> Response:
    caller = _reader(request)
    return wire.json_response(await receipts.visible(_node(request), caller, request.path_params["id"]))


async def receipt_file(request: Request) -> Response:
    _reader(request)
    return await receipts.receipt_file(request)


async def verify_receipt(request: Request) -> Response:
    view = await receipts.visible(_node(request), _reader(request), request.path_params["id"])
    return wire.json_response(await _node(request).verify_receipt(view.statement.id))


async def erase_receipt_key(request: Request) -> Response:
    caller = _manager(request)
    view = await receipts.visible(_node(request), caller, request.path_params["id"])
    await _node(request).erase_receipt_key(view.statement.id, by=caller)
    return wire.json_response(values.Erased(id=view.statement.id, erased=True))


async def checkpoint(request: Request) -> Response:
    return await receipts.checkpoint(request)


async def call(request: Request) -> Response:
    """The inner answer as it comes, status, evidence and all; leaving early cancels it."""
    caller = wire.caller_of(request)
    if caller.role is Role.AUDITOR:
        raise Denied("role.auditor", "an auditor reads and calls no model")
    wanted = await _body(request, values.CallOf, limits.BODY_BYTES_MAX)
    inner = await wire.until_gone(
        request,
        _node(request).call(
            Inner(
                caller=caller,
                path=wanted.path,
                body=bytes(wanted.body),
                data_class=wanted.data_class,
                data_categories=wanted.data_categories,
            )
        ),
    )
    headers = wire.evidence(inner.headers)
    headers["content-type"] = inner.headers.get("content-type", "application/json")
    return StreamingResponse(wire.closing(aiter(inner), inner.aclose), inner.status, headers)


def _node(request: Request) -> NodePort:
    node: NodePort = request.app.state.node
    return node


def _operator(caller: Caller) -> bool:
    return caller.key_id == roles.OPERATOR


def _scope(caller: Caller) -> str | None:
    """Whose things: the caller's organisation, or for the operator everybody's."""
    return None if _operator(caller) else caller.organisation


def _reader(request: Request) -> Caller:
    return _with_role(request, READERS, "reading the node's state")


def _manager(request: Request) -> Caller:
    return _with_role(request, MANAGERS, "changing this")


def _with_role(request: Request, allowed: frozenset[Role], what: str) -> Caller:
    caller = wire.caller_of(request)
    if caller.role not in allowed:
        named = ", ".join(sorted(allowed))
        raise Denied("role.insufficient", f"{what} takes a key with one of the roles: {named}")
    return caller


async def _project(request: Request, caller: Caller, name: str) -> ProjectView:
    for project in await _node(request).list_projects(organisation=_scope(caller)):
        if project.id == name:
            return project
    raise _absent("project", name)


def _of_key(key: KeyView) -> Target:
    return Target(organisation=key.organisation, project=key.project, role=key.role, key_id=key.key_id)


def _of_project(project: ProjectView) -> Target:
    return Target(organisation=project.organisation, project=project.id)


def _absent(what: str, name: str) -> NotFound:
    return NotFound(f"{what}.unknown", f"there is no {what} {name[:80]!r} that you may see")


async def _body(request: Request, kind: type[T], at_most: int = limits.ADMIN_BODY_BYTES_MAX) -> T:
    """The strictly decoded body. Raises Usage with the field and the nearest known name."""
    raw = await wire.body_of(request, at_most)
    try:
        return msgspec.json.decode(raw, type=kind)
    except msgspec.ValidationError as error:
        raise problems.strict(error, kind.__struct_fields__) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Usage("body.not-json", f"the request body is not JSON: {error}") from error


def _number(request: Request, name: str, default: Any, *, at_least: int, at_most: int) -> Any:
    text = request.query_params.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 20 and at_least <= int(text) <= at_most):
        raise Usage("query.number", f"{name} is a whole number from {at_least} to {at_most}", field=name)
    return int(text)
