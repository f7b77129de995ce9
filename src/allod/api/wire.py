"""What every cold endpoint shares: who calls, a bounded body, and work that ends when the client leaves.

The front has already checked the key; the control socket is private to the node's user, so the caller in
`allod-internal-caller` is taken as it stands. A request without it is anonymous.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any, TypeVar

import anyio
import msgspec
from starlette.requests import Request
from starlette.responses import Response

from allod import limits
from allod.errors import Denied, TooLarge, Unauthenticated, Usage
from allod.identity import roles
from allod.identity.caller import Caller

CALLER_HEADER = "allod-internal-caller"
PARENT_HEADER = "allod-internal-parent"
CLASS_HEADER = "allod-data-class"
CATEGORIES_HEADER = "allod-data-categories"

T = TypeVar("T")
_CALLER = msgspec.json.Decoder(Caller)


class ClientGone(Exception):  # an event, not a mistake
    """The client closed its side; nobody reads what would be answered."""


def encode_caller(caller: Caller) -> str:
    """The header value: base64url (RFC 4648 §5, padded) of the caller as JSON."""
    return base64.urlsafe_b64encode(msgspec.json.encode(caller)).decode()


def decode_caller(value: str) -> Caller:
    """Raises Unauthenticated `caller.malformed`; accepts base64url with or without padding."""
    try:
        return _CALLER.decode(
            base64.urlsafe_b64decode(value.rstrip("=") + "=" * (-len(value.rstrip("=")) % 4))
        )
    except (ValueError, binascii.Error, msgspec.MsgspecError) as error:
        raise Unauthenticated(
            "caller.malformed", "the node's internal caller header is unreadable"
        ) from error


def caller_of(request: Request) -> Caller:
    """The authenticated caller. Raises Unauthenticated `key.missing`."""
    operator: Caller | None = getattr(request.app.state, "operator", None)
    if operator is not None:
        return operator
    value = request.headers.get(CALLER_HEADER)
    if not value:
        raise Unauthenticated(
            "key.missing",
            "this endpoint needs an API key",
            hint="send the header 'Authorization: Bearer allod_…'; make a key with: allod key create",
        )
    caller = decode_caller(value)
    if caller.key_id == roles.OPERATOR:
        # The operator exists only on the admin socket: nothing that came through a front may claim to be it.
        raise Denied("caller.operator", "the node's operator speaks only through the admin socket")
    return caller


async def body_of(request: Request, at_most: int = limits.BODY_BYTES_MAX) -> bytes:
    """The request body. Raises TooLarge `body.too-large` before more than the bound is held."""
    declared = request.headers.get("content-length", "")
    held = bytearray()
    if not (declared.isdigit() and int(declared) > at_most):
        async for piece in request.stream():
            held += piece
            if len(held) > at_most:
                break
        else:
            return bytes(held)
    raise TooLarge("body.too-large", f"the request body is larger than {at_most} bytes", limit=at_most)


def json_of(body: bytes) -> Any:
    """The body as plain JSON values. Raises Usage `body.not-json`."""
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Usage("body.not-json", f"the request body is not JSON: {error}") from error


async def until_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Runs `work` and cancels it when the client disconnects (ClientGone). The body must have been read."""

    async def watch() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    working = asyncio.ensure_future(work)
    watching = asyncio.ensure_future(watch())
    try:
        await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientGone
        return working.result()
    finally:
        for task in (working, watching):
            task.cancel()
        await asyncio.gather(working, watching, return_exceptions=True)


async def closing(source: AsyncIterator[bytes], close: Callable[[], Awaitable[None]]) -> AsyncIterator[bytes]:
    """Relays `source`; whatever ends it (also the client leaving), `close` runs to its end."""
    try:
        async for piece in source:
            yield piece
    finally:
        with anyio.CancelScope(shield=True):
            await close()


def evidence(headers: dict[str, str]) -> dict[str, str]:
    """The headers of an inner answer that are the client's: the receipt, the site, what explains them."""
    kept = ("retry-after",)
    return {
        name: value
        for name, value in headers.items()
        if (name.startswith("allod-") and not name.startswith("allod-internal-")) or name in kept
    }


def json_response(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(msgspec.json.encode(value), status, headers, media_type="application/json")
