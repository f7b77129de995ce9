"""A real HTTP server on a Unix socket that speaks the OpenAI dialect from a script.

    python tests/servers/scripted_engine.py SOCKET

It stands where a front does: it reads the internal headers and answers with a receipt and a site. What it
says follows from the request: "slow" streams until it is left, "torn" ends in the middle, "fail:STATUS"
fails, tools are called, a schema is met, and otherwise it repeats the last message.
GET /seen tells what it was asked and how many were cancelled.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

EVIDENCE = {"allod-receipt": "r-01JZZZZZZZZZZZZZZZZZZZZZZZ", "allod-site": "here"}
SEEN: dict[str, Any] = {"requests": [], "cancelled": 0}
USAGE = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}


def said(body: dict[str, Any]) -> str:
    last = body["messages"][-1]["content"]
    return last if isinstance(last, str) else "".join(part.get("text", "") for part in last or [])


def reply(body: dict[str, Any]) -> dict[str, Any]:
    form = body.get("response_format", {})
    if form.get("type") == "json_schema":
        return {"content": json.dumps(dict.fromkeys(form["json_schema"]["schema"]["properties"], "x"))}
    if body.get("tools") and body["messages"][-1]["role"] != "tool":
        name = body["tools"][0]["function"]["name"]
        arguments = json.dumps({"city": "Wien"})
        call = {
            "id": "call_0123456789abcdef",
            "type": "function",
            "function": {"name": name, "arguments": arguments},
        }
        return {"content": None, "tool_calls": [call]}
    if said(body).startswith("think"):
        return {"content": "42", "reasoning_content": "six times seven"}
    return {"content": said(body)}


def pieces(text: str) -> list[str]:
    return [text[at : at + 3] for at in range(0, len(text), 3)]


def deltas(body: dict[str, Any]) -> list[dict[str, Any]]:
    """The reply in fragments, tool calls split as engines do: name first, arguments in pieces."""
    message = reply(body)
    out: list[dict[str, Any]] = [{"role": "assistant", "content": None}]
    out += [{"reasoning_content": piece} for piece in pieces(message.get("reasoning_content", ""))]
    out += [{"content": piece} for piece in pieces(message.get("content") or "")]
    for at, call in enumerate(message.get("tool_calls", [])):
        first = {"name": call["function"]["name"], "arguments": ""}
        out.append({"tool_calls": [{"index": at, "id": call["id"], "type": "function", "function": first}]})
        for piece in pieces(call["function"]["arguments"]):
            out.append({"tool_calls": [{"index": at, "function": {"arguments": piece}}]})
    return out


def event(choices: list[dict[str, Any]], **more: Any) -> str:
    chunk = {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "m",
        "choices": choices,
    }
    return f"data: {json.dumps(chunk | more)}\n\n"


async def stream(body: dict[str, Any]) -> AsyncIterator[str]:
    try:
        if said(body) == "slow":
            for at in range(10_000):
                yield event([{"index": 0, "delta": {"content": f"{at} "}, "finish_reason": None}])
                await asyncio.sleep(0.02)
        for delta in deltas(body):
            yield event([{"index": 0, "delta": delta, "finish_reason": None}])
        if said(body) == "torn":
            return
        reason = "tool_calls" if "tool_calls" in reply(body) else "stop"
        yield event([{"index": 0, "delta": {}, "finish_reason": reason}])
        if body.get("stream_options", {}).get("include_usage"):
            yield event([], usage=USAGE)
        yield "data: [DONE]\n\n"
    except asyncio.CancelledError:
        SEEN["cancelled"] += 1
        raise


async def chat(request: Request) -> Response:
    body = await record(request)
    if said(body).startswith("fail:"):
        status = int(said(body)[5:])
        error = {"message": "as scripted", "type": "denied", "code": "scripted.failure", "param": None}
        return JSONResponse(
            {"error": error}, status, EVIDENCE | ({"retry-after": "7"} if status == 503 else {})
        )
    if body.get("stream"):
        return StreamingResponse(stream(body), headers=EVIDENCE, media_type="text/event-stream")
    if said(body) == "slow":
        while not await request.is_disconnected():
            await asyncio.sleep(0.02)
        SEEN["cancelled"] += 1
    message = {"role": "assistant", **reply(body)}
    reason = "tool_calls" if "tool_calls" in message else "stop"
    choice = {"index": 0, "message": message, "finish_reason": reason}
    answer = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [choice],
    }
    return JSONResponse(answer | {"usage": USAGE}, headers=EVIDENCE)


async def completions(request: Request) -> Response:
    body = await record(request)
    choice = {"index": 0, "text": f"<{body['prompt']}>", "finish_reason": "stop"}
    if body.get("stream"):
        frames = [
            event([choice | {"finish_reason": None}]),
            event([choice | {"text": ""}]),
            event([], usage=USAGE),
        ]
        return StreamingResponse(
            iter([*frames, "data: [DONE]\n\n"]), headers=EVIDENCE, media_type="text/event-stream"
        )
    answer = {"id": "cmpl-1", "object": "text_completion", "created": 1, "model": "m", "choices": [choice]}
    return JSONResponse(answer | {"usage": USAGE}, headers=EVIDENCE)


async def embeddings(request: Request) -> Response:
    body = await record(request)
    texts = [body["input"]] if isinstance(body["input"], str) else body["input"]
    data = [{"object": "embedding", "index": at, "embedding": [0.5] * 4} for at in range(len(texts))]
    usage = {"prompt_tokens": 2, "total_tokens": 2}
    return JSONResponse({"object": "list", "model": "m", "data": data, "usage": usage}, headers=EVIDENCE)


async def record(request: Request) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(await request.body())
    headers = {name: value for name, value in request.headers.items() if name.startswith("allod-")}
    SEEN["requests"].append({"path": request.url.path, "body": body, "headers": headers})
    return body


async def seen(request: Request) -> Response:
    return JSONResponse(SEEN)


async def malformed(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": {"message": repr(error), "type": "invalid_request_error"}}, 400, EVIDENCE)


app = Starlette(
    exception_handlers=dict.fromkeys((KeyError, TypeError, AttributeError, IndexError), malformed),
    routes=[
        Route("/v1/chat/completions", chat, methods=["POST"]),
        Route("/v1/completions", completions, methods=["POST"]),
        Route("/v1/embeddings", embeddings, methods=["POST"]),
        Route("/seen", seen),
    ],
)

if __name__ == "__main__":
    uvicorn.run(app, uds=sys.argv[1], log_level="warning")
