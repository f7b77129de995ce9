"""The two ASGI applications of the control process.

`public_app` takes what the fronts hand over; `admin_app` is the same administration for the node's operator.
Both answer every failure in the dialect of the one who asked, and tell nothing of what broke inside.
"""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from allod.api import models, openapi, problems, receipts
from allod.api.mistral import routes as mistral
from allod.api.openai import routes as openai
from allod.api.ports import NodePort
from allod.api.problems import Dialect
from allod.api.wire import ClientGone
from allod.errors import AllodError
from allod.identity.caller import Caller

_CLIENT_GONE = 499  # nginx's number; nobody reads it but a log


def public_app(node: NodePort) -> Starlette:
    """Everything the fronts do not serve themselves; callers come in `allod-internal-caller`."""
    return _app(
        node,
        None,
        [
            *openapi.routes(),
            *receipts.routes(),
            *models.routes(),
            *models.routes("/mistral"),
            *mistral.routes(),
            *mistral.routes("/mistral"),
            *openai.routes(),
        ],
    )


def admin_app(node: NodePort, operator: Caller) -> Starlette:
    """The administration for whoever can open the admin socket: the operator, whatever the headers say."""
    return _app(node, operator, [*openapi.routes(), *openai.routes()])


def dialect_of(request: Request) -> Dialect:
    """By path, else by the client's own name; OpenAI's where nothing says otherwise."""
    path = request.url.path
    if path.startswith("/admin/"):
        return "admin"
    agent = request.headers.get("user-agent", "").lower()
    if path.startswith(("/mistral/", "/v1/fim/")) or agent.startswith("mistral-client"):
        return "mistral"
    # Plain chat and embeddings are the front's; what arrives here of them was handed over as Mistral's.
    handed = request.method == "POST" and path in ("/v1/chat/completions", "/v1/embeddings")
    return "mistral" if handed else "openai"


def _app(node: NodePort, operator: Caller | None, routes: list[BaseRoute]) -> Starlette:
    app = Starlette(
        routes=routes,
        exception_handlers={
            AllodError: _deliberate,
            ClientGone: _gone,
            HTTPException: _routing,
            Exception: _unforeseen,
        },
    )
    app.state.node = node
    app.state.operator = operator
    return app


async def _deliberate(request: Request, error: Exception) -> Response:
    assert isinstance(error, AllodError)
    return problems.response(error, dialect_of(request))


async def _gone(request: Request, error: Exception) -> Response:
    return Response(status_code=_CLIENT_GONE)


async def _routing(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    found = AllodError(
        f"http.{error.status_code}", f"{request.method} {request.url.path[:120]}: {error.detail}"
    )
    found.status = error.status_code
    return problems.response(found, dialect_of(request), dict(error.headers or {}))


async def _unforeseen(request: Request, error: Exception) -> Response:
    found = AllodError("internal.unforeseen", "something failed inside the node; its log has the details")
    return problems.response(found, dialect_of(request))
