"""Mistral's endpoints: the request translated, taken through the path, and the answer translated back.

The receipt and site headers of the inner exchange are the client's; a client that leaves cancels it.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from allod.api import models, problems, sse, wire
from allod.api.mistral import answer, embeddings, messages
from allod.api.mistral import request as asked
from allod.api.mistral.answer import Reframer, Shape
from allod.api.ports import Inner, InnerAnswer, NodePort
from allod.errors import NotReady

SSE_HEADERS = {"cache-control": "no-cache", "x-accel-buffering": "no"}


async def chat_completions(request: Request) -> Response:
    value = wire.json_of(await wire.body_of(request))
    wanted = asked.parse(value, asked.ChatRequest)
    if messages.has_image(wanted.messages):
        await _sees(request, wanted.model)
    prefix = messages.prefix_text(wanted.messages[-1]) or ""
    return await _complete(request, "/v1/chat/completions", asked.chat(wanted), wanted, prefix)


async def fim_completions(request: Request) -> Response:
    value = wire.json_of(await wire.body_of(request))
    wanted = asked.parse(value, asked.FimRequest)
    node: NodePort = request.app.state.node
    service = models.find(await node.status(), wanted.model)
    return await _complete(request, "/v1/completions", asked.fim(wanted, service.fim), wanted, "")


async def embed(request: Request) -> Response:
    value = wire.json_of(await wire.body_of(request))
    wanted = embeddings.parse(value)
    inner = await _call(request, "/v1/embeddings", msgspec.json.encode(embeddings.to_openai(wanted)))
    body = await wire.until_gone(request, _read(inner))
    headers = wire.evidence(inner.headers)
    if inner.status >= 400:
        return problems.response(problems.upstream(inner.status, body), "mistral", headers)
    told = embeddings.from_openai(_json(body), wanted, headers.get("allod-receipt", "embd-allod"))
    return wire.json_response(told, headers=headers)


async def _sees(request: Request, model: str) -> None:
    """Raises Invalid where the model takes no images: engines answer that with a failure of their own."""
    node: NodePort = request.app.state.node
    if not models.find(await node.status(), model).vision:
        raise problems.Invalid("value_error", ("messages",), f"the model {model!r} takes no images")


async def _complete(
    request: Request,
    path: str,
    body: dict[str, Any],
    wanted: asked.ChatRequest | asked.FimRequest,
    prefix: str,
) -> Response:
    if prefix:
        # Whole answers of some engines repeat the prefix and of others do not; no stream does.
        body |= asked.STREAMED
    inner = await _call(request, path, msgspec.json.encode(body))
    headers = wire.evidence(inner.headers)
    shape = Shape(model=wanted.model, created=int(time.time()), prefix=prefix, max_tokens=wanted.max_tokens)
    if inner.status < 400 and prefix and not wanted.stream:
        chunks = await wire.until_gone(request, _chunks(inner, shape))
        return wire.json_response(answer.folded(chunks), headers=headers)
    if inner.status < 400 and wanted.stream:
        stream = wire.closing(_reframed(inner, shape), inner.aclose)
        return StreamingResponse(stream, inner.status, headers | SSE_HEADERS, media_type="text/event-stream")
    answered = await wire.until_gone(request, _read(inner))
    if inner.status >= 400:
        return problems.response(problems.upstream(inner.status, answered), "mistral", headers)
    return wire.json_response(answer.whole(_json(answered), shape), headers=headers)


async def _reframed(inner: InnerAnswer, shape: Shape) -> AsyncIterator[bytes]:
    reframer = Reframer(shape)
    complete = False
    try:
        async for event in sse.events(aiter(inner)):
            # Read on after [DONE]: the front holds the last byte back until the receipt is on disk.
            complete = complete or event is None
            for chunk in reframer.feed(event or {}):
                yield sse.event(chunk)
    except NotReady:
        complete = False  # the client learns it as finish_reason "error" and the missing [DONE]
    yield sse.event(reframer.end(complete=complete))
    if complete:
        yield sse.DONE


async def _chunks(inner: InnerAnswer, shape: Shape) -> list[dict[str, Any]]:
    """The whole stream. Raises NotReady `upstream.torn` where it did not come to its end."""
    reframer = Reframer(shape)
    chunks: list[dict[str, Any]] = []
    complete = False
    try:
        async for event in sse.events(aiter(inner)):
            complete = complete or event is None
            chunks += reframer.feed(event or {})
    finally:
        await inner.aclose()
    if not complete:
        raise NotReady("upstream.torn", "the engine's answer broke off")
    return [*chunks, reframer.end(complete=True)]


async def _call(request: Request, path: str, body: bytes) -> InnerAnswer:
    node: NodePort = request.app.state.node
    inner = Inner(
        caller=wire.caller_of(request),
        path=path,
        body=body,
        data_class=request.headers.get(wire.CLASS_HEADER, ""),
        data_categories=request.headers.get(wire.CATEGORIES_HEADER, ""),
        parent=request.headers.get(wire.PARENT_HEADER, ""),
    )
    return await wire.until_gone(request, node.call(inner))


async def _read(inner: InnerAnswer) -> bytes:
    try:
        return await inner.read()
    finally:
        await inner.aclose()


def _json(body: bytes) -> dict[str, Any]:
    try:
        return msgspec.json.decode(body, type=dict[str, Any])
    except msgspec.MsgspecError as error:
        raise NotReady("upstream.malformed", "the engine's answer is not a JSON object") from error


def routes(prefix: str = "") -> list[Route]:
    return [
        Route(f"{prefix}/v1/chat/completions", chat_completions, methods=["POST"]),
        Route(f"{prefix}/v1/fim/completions", fim_completions, methods=["POST"]),
        Route(f"{prefix}/v1/embeddings", embed, methods=["POST"]),
    ]
