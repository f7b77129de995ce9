"""The administrative API's endpoints as one table, of which routes and OpenAPI 3.1 document are made."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Literal

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

import allod
from allod import limits
from allod.api import admin, ports, receipts, wire
from allod.api import admin_values as values
from allod.policy.explain import Explanation

PREFIX = "/admin/v1"
_REF = "#/components/schemas/{name}"
_ERRORS = (400, 401, 403, 404, 413, 503)


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    method: Literal["GET", "POST", "DELETE"]
    path: str
    summary: str
    handler: Callable[[Request], Awaitable[Response]]
    answer: Any  # a type, or a media type for answers that are not JSON
    body: Any = None
    status: int = 200
    query: dict[str, dict[str, Any]] = {}


_PAGE: dict[str, dict[str, Any]] = {
    "limit": {"type": "integer", "minimum": 1, "maximum": limits.EXCHANGES_PER_PAGE_MAX, "default": 50},
    "before": {"type": "integer", "minimum": 0, "maximum": 2**62},
    "project": {"type": "string"},
}
_FORM: dict[str, dict[str, Any]] = {
    "form": {"type": "string", "enum": list(receipts.MEDIA), "default": "tlog-proof"}
}

ENDPOINTS: tuple[Endpoint, ...] = (
    Endpoint(
        method="GET",
        path="/status",
        summary="The node at a glance",
        handler=admin.status,
        answer=ports.NodeStatus,
    ),
    Endpoint(
        method="GET",
        path="/sites",
        summary="Sites, their facts, and what may go there",
        handler=admin.sites,
        answer=list[ports.SiteView],
    ),
    Endpoint(
        method="POST",
        path="/policy/explain",
        summary="Which sites the rules allow, which not, by which rules and facts",
        handler=admin.explain,
        body=values.Explain,
        answer=Explanation,
    ),
    Endpoint(
        method="POST",
        path="/reload",
        summary="Read policy and site files again",
        handler=admin.reload,
        answer=values.Reloaded,
    ),
    Endpoint(
        method="GET",
        path="/keys",
        summary="API keys, without their secrets",
        handler=admin.list_keys,
        answer=list[ports.KeyView],
    ),
    Endpoint(
        method="POST",
        path="/keys",
        summary="Make an API key; its secret is shown once",
        handler=admin.create_key,
        body=values.NewKeyOf,
        answer=ports.NewKey,
        status=201,
    ),
    Endpoint(
        method="DELETE",
        path="/keys/{id}",
        summary="Revoke a key; returns once no front accepts it",
        handler=admin.revoke_key,
        answer=ports.KeyView,
    ),
    Endpoint(
        method="GET",
        path="/projects",
        summary="Projects",
        handler=admin.list_projects,
        answer=list[ports.ProjectView],
    ),
    Endpoint(
        method="POST",
        path="/projects",
        summary="Make a project",
        handler=admin.create_project,
        body=values.NewProject,
        answer=ports.ProjectView,
        status=201,
    ),
    Endpoint(
        method="POST",
        path="/organisations",
        summary="Make an organisation (the node's operator only)",
        handler=admin.create_organisation,
        body=values.NewOrganisation,
        answer=values.Created,
        status=201,
    ),
    Endpoint(
        method="GET",
        path="/exchanges",
        summary="Exchanges, newest first",
        handler=admin.exchanges,
        query=_PAGE,
        answer=list[ports.ExchangeView],
    ),
    Endpoint(
        method="GET",
        path="/receipts/{id}",
        summary="A receipt with its proof",
        handler=admin.receipt,
        answer=ports.ReceiptView,
    ),
    Endpoint(
        method="GET",
        path="/receipts/{id}/file",
        summary="A receipt as a file that others can verify",
        handler=admin.receipt_file,
        query=_FORM,
        answer="text/plain",
    ),
    Endpoint(
        method="POST",
        path="/receipts/{id}/verify",
        summary="Verify a receipt, check by check",
        handler=admin.verify_receipt,
        answer=ports.Verification,
    ),
    Endpoint(
        method="DELETE",
        path="/receipts/{id}/key",
        summary="Destroy the record key (erasure); this is logged",
        handler=admin.erase_receipt_key,
        answer=values.Erased,
    ),
    Endpoint(
        method="GET",
        path="/checkpoint",
        summary="The signed tree head",
        handler=admin.checkpoint,
        answer="text/plain",
    ),
    Endpoint(
        method="POST",
        path="/call",
        summary="Call a model; the answer is passed through as it comes",
        handler=admin.call,
        body=values.CallOf,
        answer="*/*",
    ),
)


def document() -> dict[str, Any]:
    """The OpenAPI 3.1 document."""
    typed = [t for e in ENDPOINTS for t in (e.body, e.answer) if t is not None and not isinstance(t, str)]
    schemas, components = msgspec.json.schema_components([*typed, values.Failure], ref_template=_REF)
    found = dict(zip([str(t) for t in typed] + [str(values.Failure)], schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in ENDPOINTS:
        paths.setdefault(PREFIX + endpoint.path, {})[endpoint.method.lower()] = _operation(endpoint, found)
    return {
        "openapi": "3.1.0",
        "info": {"title": "allod administration", "version": allod.__version__},
        "security": [{"key": []}],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(endpoint: Endpoint, found: dict[str, Any]) -> dict[str, Any]:
    media = endpoint.answer if isinstance(endpoint.answer, str) else "application/json"
    schema = {} if isinstance(endpoint.answer, str) else found[str(endpoint.answer)]
    failure = {"application/json": {"schema": found[str(values.Failure)]}}
    content = {media: {"schema": schema}}
    if endpoint.query is _FORM:
        content = {kind.partition(";")[0]: {"schema": {}} for kind in receipts.MEDIA.values()}
    operation: dict[str, Any] = {
        "operationId": endpoint.handler.__name__,
        "summary": endpoint.summary,
        "responses": {
            str(endpoint.status): {"description": "as asked", "content": content},
            **{str(status): {"description": "an error", "content": failure} for status in _ERRORS},
        },
    }
    if endpoint.answer == "*/*":
        # Statuses and errors are those of the endpoint behind it, in that endpoint's own shape.
        passed = {"description": "the inner answer", "content": content}
        operation["responses"] = {str(endpoint.status): passed, "default": passed}
    if endpoint.body is not None:
        body = {"application/json": {"schema": found[str(endpoint.body)]}}
        operation["requestBody"] = {"required": True, "content": body}
    operation["parameters"] = [
        {"name": name, "in": "query", "schema": schema} for name, schema in endpoint.query.items()
    ]
    if "{id}" in endpoint.path:
        operation["parameters"].append(
            {"name": "id", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
        )
    return operation


async def openapi(request: Request) -> Response:
    """The document itself; it holds nothing secret, so any caller may read it."""
    return wire.json_response(document())


def routes() -> list[Route]:
    served = [Route(PREFIX + e.path, e.handler, methods=[e.method]) for e in ENDPOINTS]
    return [Route(f"{PREFIX}/openapi.json", openapi), *served]
