"""The console as one ASGI application: routes, headers on every answer, errors as pages."""

from __future__ import annotations

from importlib.resources import as_file, files

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from allod.api.ports import NodePort
from allod.clock import Clock, SystemClock
from allod.console.models import Models
from allod.console.pages import Pages
from allod.console.playground import Playground
from allod.console.session import Session
from allod.console.shell import HEADERS, Shell, SignInNeeded
from allod.errors import AllodError, NotFound, Usage

_RAW_HEADERS = [(k.encode(), v.encode()) for k, v in HEADERS.items()]


def console_app(node: NodePort, session_key: bytes, *, clock: Clock | None = None) -> Starlette:
    """The console over `node`, to be mounted anywhere (all links follow the mount point).

    `session_key`: at least 32 random bytes that live as long as sign-ins should survive a restart. The server
    in front says through the ASGI scope whether the connection is https (`scheme`) and who asks (`client`).
    Raises Usage where the key is too short.
    """
    shell = Shell(node, session_key, clock or SystemClock())
    pages, playground = Pages(shell), Playground(shell)
    with as_file(files("allod.console") / "static") as folder:
        static = StaticFiles(directory=folder)

    async def sign_in_needed(request: Request, _: Exception) -> Response:
        return shell.to_sign_in(request)

    async def problem(request: Request, error: Exception) -> Response:
        assert isinstance(error, AllodError)
        return shell.problem(request, await _session_or_none(shell, request), error)

    async def http_problem(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        session = await _session_or_none(shell, request)
        if error.status_code == 404:
            missing = NotFound(
                "console.no-such-page", "there is no such page", hint="start from the node's page"
            )
            return shell.problem(request, session, missing)
        refused = Usage("console.bad-request", error.detail)
        refused.status = error.status_code
        return shell.problem(request, session, refused)

    return Starlette(
        routes=[
            Route("/", pages.node, name="node"),
            Route("/login", pages.sign_in_page, methods=["GET"]),
            Route("/login", pages.sign_in, methods=["POST"]),
            Route("/logout", pages.sign_out, methods=["POST"]),
            Route("/exchanges", pages.exchanges),
            Route("/receipts/{receipt_id}", pages.receipt),
            Route("/receipts/{receipt_id}/verify", pages.verify, methods=["POST"]),
            Route("/receipts/{receipt_id}/{form}", pages.file),
            Route("/models/{name:path}", Models(shell).card),
            Route("/playground", playground.prompt_page, methods=["GET"]),
            Route("/playground", playground.send_prompt, methods=["POST"]),
            Route("/playground/document", playground.document_page, methods=["GET"]),
            Route("/playground/document", playground.send_document, methods=["POST"]),
            Mount("/static", static),
        ],
        middleware=[Middleware(_Headers)],
        exception_handlers={SignInNeeded: sign_in_needed, AllodError: problem, HTTPException: http_problem},
    )


class _Headers:
    """Puts the security headers on every answer, errors and static files included."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], *_RAW_HEADERS]}
            await send(message)

        await self._app(scope, receive, with_headers if scope["type"] == "http" else send)


async def _session_or_none(shell: Shell, request: Request) -> Session | None:
    try:
        return await shell.signed_in(request)
    except (SignInNeeded, AllodError):
        return None
