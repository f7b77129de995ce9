"""The OpenAI dialect beside its hot routes and models: an honest 404 for what does not exist yet."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from allod.api import coverage
from allod.errors import NotFound

DOCS = "see docs/api.md"


async def absent(request: Request) -> Response:
    """Raises NotFound `endpoint.not-yet` for what the API has and allod lacks, else `endpoint.unknown`."""
    path = request.url.path.removeprefix("/mistral")
    if coverage.known(path):
        raise NotFound("endpoint.not-yet", f"allod does not serve {path} yet", hint=DOCS)
    raise NotFound("endpoint.unknown", f"there is no endpoint {path[:120]}", hint=DOCS)


def routes() -> list[Route]:
    methods = ["GET", "POST", "PUT", "PATCH", "DELETE"]
    return [Route("/{path:path}", absent, methods=methods)]
