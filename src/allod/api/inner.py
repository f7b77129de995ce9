"""Calls made inside the node: over a front's Unix socket, so that they take the whole path like any other.

A call moves to another front only where nothing was sent, that is when the connection could not be made. Once
bytes have left, a failure is reported: asking twice could be charged twice.
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx

from allod import limits
from allod.api import wire
from allod.api.ports import Inner
from allod.errors import NotReady, Usage


class HttpAnswer:
    """An `InnerAnswer` over HTTP. Iterate or `read` it once; `aclose` early cancels down to the engine."""

    def __init__(self, response: httpx.Response, client: httpx.AsyncClient) -> None:
        self._response = response
        self._client = client
        self.status = response.status_code
        self.headers = {name.lower(): value for name, value in response.headers.items()}

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for piece in self._response.aiter_raw():
                yield piece
        except httpx.HTTPError as error:
            raise _broken(error) from error

    async def read(self) -> bytes:
        try:
            pieces = [piece async for piece in self]
        finally:
            await self.aclose()
        return b"".join(pieces)

    async def aclose(self) -> None:
        await self._response.aclose()
        await self._client.aclose()


class InnerClient:
    """Implements `NodePort.call` over the sockets of the fronts that run now, taking them in turn."""

    def __init__(self, sockets: Callable[[], list[Path]]) -> None:
        self._sockets = sockets
        self._turn = itertools.count()

    async def call(self, inner: Inner) -> HttpAnswer:
        """Raises Usage, NotReady `front.absent` (nothing was sent) or `front.broken` (it may have run)."""
        request = _request(inner)
        sockets = self._sockets()
        first = next(self._turn) % len(sockets) if sockets else 0
        refused: httpx.HTTPError | None = None
        for socket in sockets[first:] + sockets[:first]:
            client = _client(socket)
            try:
                response = await client.send(request, stream=True)
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                refused = error
                await client.aclose()
            except httpx.HTTPError as error:
                await client.aclose()
                raise _broken(error) from error
            except BaseException:
                await client.aclose()
                raise
            else:
                return HttpAnswer(response, client)
        raise NotReady(
            "front.absent", "no front worker of this node takes calls right now", hint="allod status"
        ) from refused


def _client(socket: Path) -> httpx.AsyncClient:
    # One connection per call: a connection that idled across a front's restart could not tell "nothing was
    # sent" from "nothing was answered", and connecting to a Unix socket costs microseconds.
    return httpx.AsyncClient(
        transport=httpx.AsyncHTTPTransport(uds=str(socket), retries=0),
        trust_env=False,
        timeout=httpx.Timeout(limits.ENGINE_FIRST_BYTE_TIMEOUT_S, connect=limits.ENGINE_CONNECT_TIMEOUT_S),
    )


def _request(inner: Inner) -> httpx.Request:
    headers = {
        "content-type": inner.content_type,
        "accept-encoding": "identity",
        "user-agent": "allod-inner",
        "connection": "close",
        wire.CALLER_HEADER: wire.encode_caller(inner.caller),
    }
    optional = {
        wire.PARENT_HEADER: inner.parent,
        wire.CLASS_HEADER: inner.data_class,
        wire.CATEGORIES_HEADER: inner.data_categories,
    }
    for name, value in optional.items():
        if not (value.isascii() and (value.isprintable() or not value)):
            raise Usage("header.malformed", f"the value for {name} is not plain printable text")
        if value:
            headers[name] = value
    return httpx.Request("POST", f"http://front{inner.path}", content=inner.body, headers=headers)


def _broken(error: httpx.HTTPError) -> NotReady:
    return NotReady(
        "front.broken",
        f"the front worker ended before its answer did ({type(error).__name__})",
        hint="the exchange has a receipt of its own: allod receipt show",
    )
