"""The egress process itself: an ASGI application that passes exchanges to one provider and back.

Guarantees: it opens connections to the host of `base_url` only (no proxy from the environment, no redirect
followed) and verifies its certificate; of the client's headers none leave; the key leaves in
`Authorization` only, and is cut out of anything the provider says in an error; streams pass frame by frame;
when the caller goes, the provider's connection is closed at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from typing import Any

import httpx
import msgspec

from allod.engines.provider import mistral
from allod.engines.provider.config import ProviderConfig
from allod.errors import AllodError, NotFound, NotReady, TooLarge, Usage
from allod.limits import (
    BODY_BYTES_MAX,
    ENGINE_FIRST_BYTE_TIMEOUT_S,
    PROVIDER_CONNECT_TIMEOUT_S,
    PROVIDER_CONNECTIONS_MAX,
    PROVIDER_ERROR_BYTES_MAX,
    SSE_FRAME_BYTES_MAX,
)

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_PATHS = {
    "openai": ("/v1/chat/completions", "/v1/completions", "/v1/embeddings"),
    "mistral": ("/v1/chat/completions", "/v1/fim/completions", "/v1/embeddings", "/v1/ocr"),
}
_TRANSLATED = ("/v1/chat/completions", "/v1/embeddings")
_KEPT_HEADERS = ("content-type", "retry-after")


class Relay:
    """One provider. `close` when done."""

    def __init__(self, config: ProviderConfig) -> None:
        self._config = config
        trust = ssl.create_default_context(cafile=config.ca_file or None)
        self._client = httpx.AsyncClient(
            verify=trust,
            trust_env=False,
            follow_redirects=False,
            timeout=httpx.Timeout(ENGINE_FIRST_BYTE_TIMEOUT_S, connect=PROVIDER_CONNECT_TIMEOUT_S),
            limits=httpx.Limits(max_connections=PROVIDER_CONNECTIONS_MAX),
            headers={"user-agent": "allod", "accept-encoding": "identity"},
        )

    async def close(self) -> None:
        await self._client.aclose()

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """ASGI 3."""
        if scope["type"] != "http":
            return
        body = await _body(receive)
        if body is None:
            return
        work = asyncio.ensure_future(self._answer(scope["method"], scope["path"], body, send))
        gone = asyncio.ensure_future(_gone(receive))
        try:
            await asyncio.wait((work, gone), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (work, gone):
                task.cancel()
            await asyncio.gather(work, gone, return_exceptions=True)

    async def _answer(self, method: str, path: str, body: bytes, send: Send) -> None:
        begun = False

        async def tell(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            if path == "/health":
                self._key()
                await _say(tell, 200, {"status": "ok"})
            else:
                await self._exchange(method, path, body, tell)
        except AllodError as e:
            if begun:  # the head has left: a cut stream is the only truth left to tell
                raise
            headers = {"retry-after": str(e.retry_after_s)} if isinstance(e, NotReady) else {}
            await _say(tell, e.status, _problem(e), headers)

    async def _exchange(self, method: str, path: str, body: bytes, send: Send) -> None:
        if path not in _PATHS[self._config.api]:
            raise NotFound("provider.no-such-path", f"this provider is not asked for {path}")
        if method != "POST":
            raise Usage("provider.method", f"{path} takes POST")
        url = self._config.base_url + path.removeprefix("/v1")
        request = self._client.build_request(
            "POST", url, content=self._outgoing(path, body), headers=self._headers()
        )
        try:
            response = await self._client.send(request, stream=True)
        except httpx.HTTPError as e:
            raise self._unreachable(e) from e
        try:
            await self._pass_on(path, response, send)
        except httpx.HTTPError as e:
            raise self._unreachable(e) from e
        finally:
            await response.aclose()

    async def _pass_on(self, path: str, response: httpx.Response, send: Send) -> None:
        if response.status_code != 200:
            await self._refusal(response, send)
            return
        headers = {k: v for k in _KEPT_HEADERS if (v := response.headers.get(k))}
        streamed = headers.get("content-type", "").startswith("text/event-stream")
        translated = self._config.api == "mistral" and path in _TRANSLATED
        if streamed:
            frames = _translated_lines(response) if translated else response.aiter_bytes()
            await _stream(send, headers, frames)
        elif translated:
            whole = await _bounded(response, BODY_BYTES_MAX)
            try:
                await _say(send, 200, mistral.answer(msgspec.json.decode(whole)))
            except msgspec.DecodeError as e:
                raise NotReady("provider.not-json", "the provider's answer is not JSON") from e
        else:
            await _stream(send, headers, response.aiter_bytes())

    def _outgoing(self, path: str, raw: bytes) -> bytes:
        if path not in _TRANSLATED and not self._config.models:
            return raw
        try:
            body = msgspec.json.decode(raw, type=dict[str, Any])
        except msgspec.DecodeError as e:
            raise Usage("provider.not-json", "the body is not a JSON object") from e
        model = body.get("model")
        if isinstance(model, str):
            body["model"] = self._config.models.get(model, model)
        if self._config.api == "mistral" and path in _TRANSLATED:
            body = mistral.request(body)
        return msgspec.json.encode(body)

    def _headers(self) -> dict[str, str]:
        key = self._key()
        headers = {"content-type": "application/json"}
        return headers | {"authorization": f"Bearer {key}"} if key else headers

    def _key(self) -> str:
        """Read for each exchange: what is written into the key's file is used at once. NotReady
        `site.key-missing`.
        """
        return self._config.key.resolve() if self._config.key else ""

    async def _refusal(self, response: httpx.Response, send: Send) -> None:
        """The provider's error in its words, less the key; 401, 403 and redirects are for the operator."""
        status = response.status_code
        if status in {401, 403}:
            raise NotReady(
                "provider.key-refused",
                f"the provider answered {status} to this node's key",
                hint=f"check the key at {self._config.key}" if self._config.key else "set a key",
                retry_after_s=60,
            )
        if status < 400:
            raise NotReady("provider.redirect", f"the provider answered {status}, which is not followed")
        said = await _bounded(response, PROVIDER_ERROR_BYTES_MAX)
        key = self._key()
        clean = said.replace(key.encode(), b"***") if key else said
        headers = {k: v for k in _KEPT_HEADERS if (v := response.headers.get(k))}
        await _raw(send, status, clean, headers)

    def _unreachable(self, error: httpx.HTTPError) -> NotReady:
        kind = type(error).__name__  # the text of an error may hold what was sent
        return NotReady(
            "provider.unreachable",
            f"the provider cannot be reached ({kind})",
            hint="check the network, its certificate and its status page",
        )


# --- ASGI, the little of it that is needed ------------------------------------------------------------------


async def _body(receive: Receive) -> bytes | None:
    """The whole request body; None if the caller left before it was complete."""
    parts: list[bytes] = []
    more = True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            return None
        parts.append(message.get("body", b""))
        more = message.get("more_body", False)
    return b"".join(parts)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _bounded(response: httpx.Response, bytes_max: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    async for part in response.aiter_bytes():
        size += len(part)
        if size > bytes_max:
            raise TooLarge("provider.too-large", f"the provider's answer is larger than {bytes_max} bytes")
        parts.append(part)
    return b"".join(parts)


async def _translated_lines(response: httpx.Response) -> AsyncIterator[bytes]:
    """Server-sent events with each JSON payload translated; comments and `[DONE]` as they came."""
    async for line in _lines(response):
        payload = line.removeprefix(b"data:").strip()
        if line.startswith(b"data:") and payload.startswith(b"{"):
            with contextlib.suppress(msgspec.DecodeError):
                line = b"data: " + msgspec.json.encode(mistral.answer(msgspec.json.decode(payload)))
        yield line + b"\n"


async def _lines(response: httpx.Response) -> AsyncIterator[bytes]:
    """The stream's lines without their ends. Raises TooLarge at a line that does not end in time."""
    held = b""
    async for part in response.aiter_bytes():
        *lines, held = (held + part).split(b"\n")
        for line in lines:
            yield line.removesuffix(b"\r")
        if len(held) > SSE_FRAME_BYTES_MAX:
            raise TooLarge(
                "provider.too-large", f"a frame of the provider exceeds {SSE_FRAME_BYTES_MAX} bytes"
            )
    if held:
        yield held


async def _stream(send: Send, headers: dict[str, str], parts: AsyncIterator[bytes]) -> None:
    await send(_start(200, headers))
    async for part in parts:
        await send({"type": "http.response.body", "body": part, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def _say(send: Send, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
    await _raw(
        send, status, msgspec.json.encode(body), {"content-type": "application/json"} | (headers or {})
    )


async def _raw(send: Send, status: int, body: bytes, headers: dict[str, str]) -> None:
    await send(_start(status, headers | {"content-length": str(len(body))}))
    await send({"type": "http.response.body", "body": body})


def _start(status: int, headers: dict[str, str]) -> Message:
    pairs = [(k.encode("latin-1"), v.encode("latin-1")) for k, v in headers.items()]
    return {"type": "http.response.start", "status": status, "headers": pairs}


def _problem(e: AllodError) -> dict[str, Any]:
    kind = "invalid_request_error" if isinstance(e, Usage) else "server_error"
    return {"error": {"message": e.message, "type": kind, "code": e.code, "param": None}}
