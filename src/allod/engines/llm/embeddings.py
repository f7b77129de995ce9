"""The HTTP side of an embedding replica: OpenAI's embeddings over a loaded llama.cpp server.

llama.cpp's own route ignores `dimensions` and answers 500 to a text that is too long; this one keeps both
promises of the dialect. A vector cut to `dimensions` is scaled back to length one; how much meaning it
keeps depends on how the model was trained, which its card says.
"""

from __future__ import annotations

import asyncio
import base64
import math
import struct
from collections.abc import Callable
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from allod.limits import EMBEDDING_INPUTS_MAX

Handler = Callable[[str], str]  # an embeddings request as JSON to its answer as JSON


class _Vector(msgspec.Struct):
    embedding: list[float]
    index: int


class _Answer(msgspec.Struct):
    model: str
    data: list[_Vector]
    usage: dict[str, int]


def application(handle: Handler, alias: str, width: int) -> Starlette:
    """Serves `/health` and `/v1/embeddings`. `width` is the model's own number of dimensions."""

    async def health(_request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def embeddings(request: Request) -> Response:
        try:
            wanted = _asked(await request.body(), width)
        except ValueError as e:
            return _refusal(str(e))
        # Always floats from llama.cpp: they are cut and encoded here.
        question = msgspec.json.encode({"input": wanted["input"], "encoding_format": "float"}).decode()
        try:
            said = await asyncio.to_thread(handle, question)
        except ValueError as e:
            return _refusal(str(e))
        try:
            answer = msgspec.json.decode(said, type=_Answer)
        except msgspec.ValidationError:
            return _refusal(_reason(said))
        coded = wanted.get("encoding_format") == "base64"
        data = [
            {
                "object": "embedding",
                "index": v.index,
                "embedding": _vector(v.embedding, wanted["dimensions"], coded),
            }
            for v in answer.data
        ]
        return JSONResponse({"object": "list", "model": alias, "data": data, "usage": answer.usage})

    return Starlette(routes=[Route("/health", health), Route("/v1/embeddings", embeddings, methods=["POST"])])


def _asked(raw: bytes, width: int) -> dict[str, Any]:
    """The request, checked. ValueError says what is wrong with it."""
    try:
        body = msgspec.json.decode(raw)
    except msgspec.DecodeError as e:
        raise ValueError("the body is not JSON") from e
    if not isinstance(body, dict) or not body.get("input"):
        raise ValueError("'input' has to be a text or a list of texts")
    texts = body["input"] if isinstance(body["input"], list) else [body["input"]]
    if len(texts) > EMBEDDING_INPUTS_MAX:
        raise ValueError(f"at most {EMBEDDING_INPUTS_MAX} inputs per request")
    if not all(isinstance(t, str) and t for t in texts):
        raise ValueError("'input' takes texts that are not empty; lists of token ids are not accepted")
    if body.get("encoding_format") not in {None, "float", "base64"}:
        raise ValueError('\'encoding_format\' is "float" or "base64"')
    dimensions = body.get("dimensions") or width
    if not isinstance(dimensions, int) or not 1 <= dimensions <= width:
        raise ValueError(f"'dimensions' goes from 1 to {width} for this model")
    return body | {"dimensions": dimensions}


def _vector(values: list[float], dimensions: int, coded: bool) -> list[float] | str:
    if dimensions < len(values):
        values = values[:dimensions]
        length = math.sqrt(sum(v * v for v in values)) or 1.0
        values = [v / length for v in values]
    if not coded:
        return values
    return base64.b64encode(struct.pack(f"<{len(values)}f", *values)).decode()


def _reason(said: str) -> str:
    try:
        return str(msgspec.json.decode(said)["error"]["message"])
    except (msgspec.DecodeError, KeyError, TypeError):
        return "the input could not be embedded"


def _refusal(message: str) -> Response:
    error = {"message": message, "type": "invalid_request_error", "param": "input", "code": None}
    return JSONResponse({"error": error}, 400)
