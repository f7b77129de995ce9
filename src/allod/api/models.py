"""GET /v1/models, one answer for both dialects.

OpenAI's SDK reads what it knows; Mistral's insists on `"type": "base"`.
"""

from __future__ import annotations

import difflib
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from allod.api.ports import NodePort, NodeStatus, ServiceView
from allod.api.wire import caller_of, json_response
from allod.errors import NotFound


async def list_models(request: Request) -> Response:
    caller_of(request)
    node: NodePort = request.app.state.node
    status = await node.status()
    return json_response({"object": "list", "data": [card(service, status) for service in status.services]})


async def one_model(request: Request) -> Response:
    caller_of(request)
    node: NodePort = request.app.state.node
    status = await node.status()
    return json_response(card(find(status, request.path_params["model"]), status))


def find(status: NodeStatus, name: str) -> ServiceView:
    """The service called `name`, also by alias. Raises NotFound `model.unknown` with the nearest name."""
    names = {alias: service for service in status.services for alias in (*service.aliases, service.model)}
    if name in names:
        return names[name]
    near = difflib.get_close_matches(name, names, 1)
    raise NotFound(
        "model.unknown",
        f"no model {name[:80]!r} is served here",
        hint=f"did you mean {near[0]!r}?" if near else "see GET /v1/models",
    )


def card(service: ServiceView, status: NodeStatus) -> dict[str, Any]:
    """`created` is when this node started serving; Mistral's `max_context_length` only where it is known."""
    chat = service.kind == "chat"
    entry: dict[str, Any] = {
        "id": service.model,
        "object": "model",
        "type": "base",
        "created": status.started_us // 1_000_000,
        "owned_by": "allod",
        "name": service.model,
        "description": f"test model; {service.origin}" if service.test_model else service.origin,
        "aliases": list(service.aliases),
        "capabilities": {
            "completion_chat": chat,
            "completion_fim": service.fim is not None,
            "function_calling": chat,
            "vision": service.vision,
            "ocr": service.kind == "ocr",
            "fine_tuning": False,
            "classification": False,
            "moderation": False,
            "audio": False,
        },
    }
    if service.context_tokens is not None:
        entry["max_context_length"] = service.context_tokens
    return entry


def routes(prefix: str = "") -> list[Route]:
    return [
        Route(f"{prefix}/v1/models", list_models),
        Route(f"{prefix}/v1/models/{{model:path}}", one_model),
    ]
