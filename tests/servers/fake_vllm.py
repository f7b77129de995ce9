"""A process that takes vLLM's command line and speaks vLLM's protocol on a Unix socket, without a model.

Unknown flags end it, as they end vLLM; so does a set-up that would phone home. Its answers are fixed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

WORDS = ["Bonjour", ",", " le", " monde", "."]
HOTTEST = 1.5  # at this temperature it finds no end


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser("vllm")
    serve = parser.add_subparsers(required=True).add_parser("serve")
    serve.add_argument("model_tag")
    serve.add_argument("--uds", required=True)
    serve.add_argument("--served-model-name", required=True)
    serve.add_argument("--load-format", choices=["auto", "safetensors"], default="auto")
    serve.add_argument("--gpu-memory-utilization", type=float)
    serve.add_argument("--tensor-parallel-size", type=int)
    serve.add_argument("--max-model-len", type=int)
    serve.add_argument("--runner", choices=["auto", "generate", "pooling"])
    serve.add_argument("--enable-auto-tool-choice", action="store_true")
    serve.add_argument("--tool-call-parser")
    serve.add_argument("--disable-uvicorn-access-log", action="store_true")
    return parser.parse_args()


class Vllm:
    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.running = 0

    async def health(self, _: Request) -> Response:
        return Response(status_code=200)

    async def models(self, _: Request) -> Response:
        card = {
            "id": self.options.served_model_name,
            "object": "model",
            "owned_by": "vllm",
            "root": self.options.model_tag,
            "max_model_len": self.options.max_model_len,
        }
        return JSONResponse({"object": "list", "data": [card]})

    async def metrics(self, _: Request) -> Response:
        name = self.options.served_model_name
        return PlainTextResponse(f'vllm:num_requests_running{{model_name="{name}"}} {float(self.running)}\n')

    async def chat(self, request: Request) -> Response:
        body = await request.json()
        if body.get("model") != self.options.served_model_name:
            return error(404, "NotFoundError", f"The model `{body.get('model')}` does not exist.")
        if body.get("tools") and not self.options.enable_auto_tool_choice:
            return error(400, "BadRequestError", '"auto" tool choice requires --enable-auto-tool-choice')
        if body.get("stream"):
            return StreamingResponse(self.stream(body), media_type="text/event-stream")
        message: dict[str, Any] = {"role": "assistant", "content": "".join(WORDS), "tool_calls": []}
        if body.get("tools"):
            function = {"name": body["tools"][0]["function"]["name"], "arguments": "{}"}
            call = {"id": "chatcmpl-tool-1", "type": "function", "function": function}
            message |= {"content": None, "tool_calls": [call]}
        finish = "tool_calls" if body.get("tools") else "stop"
        choice = {"index": 0, "message": message, "finish_reason": finish, "logprobs": None}
        return JSONResponse(self.envelope("chat.completion", [choice], usage()))

    async def stream(self, body: dict[str, Any]) -> AsyncIterator[str]:
        self.running += 1
        try:
            endless = body.get("ignore_eos") or body.get("temperature") == HOTTEST
            words = WORDS * (10_000 if endless else 1)
            for i, word in enumerate(words):
                delta = {"role": "assistant", "content": ""} if i == 0 else {}
                choice = {"index": 0, "delta": delta | {"content": word}, "finish_reason": None}
                yield frame(self.envelope("chat.completion.chunk", [choice]))
                await asyncio.sleep(0.001)
            end = {"index": 0, "delta": {"content": ""}, "finish_reason": "stop"}
            yield frame(self.envelope("chat.completion.chunk", [end]))
            if (body.get("stream_options") or {}).get("include_usage"):
                yield frame(self.envelope("chat.completion.chunk", [], usage()))
            yield "data: [DONE]\n\n"
        finally:
            self.running -= 1

    def envelope(self, kind: str, choices: list[Any], used: dict[str, int] | None = None) -> dict[str, Any]:
        name = self.options.served_model_name
        body = {"id": "chatcmpl-1", "object": kind, "created": 0, "model": name, "choices": choices}
        return body | ({"usage": used} if used else {})


def usage() -> dict[str, int]:
    return {"prompt_tokens": 7, "completion_tokens": len(WORDS), "total_tokens": 7 + len(WORDS)}


def frame(body: dict[str, Any]) -> str:
    return f"data: {json.dumps(body)}\n\n"


def error(status: int, kind: str, message: str) -> Response:
    return JSONResponse(
        {"error": {"message": message, "type": kind, "param": None, "code": status}}, status_code=status
    )


def main() -> None:
    options = arguments()
    for variable in ("VLLM_NO_USAGE_STATS", "DO_NOT_TRACK", "HF_HUB_OFFLINE"):
        if os.environ.get(variable) != "1":
            sys.exit(f"{variable} is not set: vLLM would contact the outside")
    vllm = Vllm(options)
    routes = [
        Route("/health", vllm.health),
        Route("/v1/models", vllm.models),
        Route("/metrics", vllm.metrics),
        Route("/v1/chat/completions", vllm.chat, methods=["POST"]),
    ]
    uvicorn.run(Starlette(routes=routes), uds=options.uds, log_level="warning")


if __name__ == "__main__":
    main()
