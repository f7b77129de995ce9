"""Server-sent events of an engine as parsed values, and values as events (WHATWG HTML, "event stream")."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import msgspec

from allod import limits
from allod.errors import NotReady

DONE = b"data: [DONE]\n\n"


def event(value: Any) -> bytes:
    return b"data: " + msgspec.json.encode(value) + b"\n\n"


async def events(pieces: AsyncIterator[bytes]) -> AsyncIterator[dict[str, Any] | None]:
    """Each `data:` event, and None for `[DONE]`. Raises NotReady `upstream.malformed`."""
    held = bytearray()
    async for piece in pieces:
        held += piece
        *lines, rest = held.split(b"\n")
        held = bytearray(rest)
        for line in lines:
            if line.startswith(b"data:"):
                yield _parsed(bytes(line[5:]).strip())
        if len(held) > limits.SSE_LINE_BYTES_MAX:
            raise NotReady("upstream.malformed", "the engine sent an event beyond any bound")


def _parsed(data: bytes) -> dict[str, Any] | None:
    if data == b"[DONE]":
        return None
    try:
        return msgspec.json.decode(data, type=dict[str, Any])
    except msgspec.MsgspecError as error:
        raise NotReady("upstream.malformed", "the engine sent an event that is not JSON") from error
