"""The OCR replica's HTTP side: `POST /v1/ocr`, `GET /v1/models`, `GET /health`.

Guarantees: nothing of a document outlives its request; at most OCR_REQUESTS_IN_FLIGHT_MAX documents are held;
a client that leaves stops its remaining pages; pages of concurrent requests take turns, so that one long
document does not shut out a short one.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from allod.engines.ocr import jobs, shape
from allod.engines.ocr.answer import PageFailed, response
from allod.engines.ocr.document import extract
from allod.engines.ocr.identity import OcrIdentity
from allod.engines.ocr.pages import Kind
from allod.engines.ocr.pool import Pool
from allod.engines.ocr.recognise import PageText, Settings
from allod.errors import AllodError, NotFound, NotReady, TooLarge
from allod.limits import (
    BODY_BYTES_MAX,
    MIB,
    OCR_REQUESTS_IN_FLIGHT_MAX,
    PAGES_PER_REQUEST_MAX,
)

_CLIENT_GONE = 499  # nobody reads it; the log does


class _Work(msgspec.Struct, frozen=True):
    """A request without its document."""

    kind: Kind
    document_bytes: int
    pages: str | list[int] | None
    granularity: shape.Granularity | None
    blocks: bool


class OcrServer:
    """The application object is `app`; its lifespan starts and ends the page workers."""

    def __init__(self, *, model_name: str, identity: OcrIdentity, settings: Settings, workers: int) -> None:
        self._model = model_name
        self._identity = identity
        self._pool = Pool(settings, workers)
        self._in_flight = 0
        self._started = int(time.time())
        self.app = Starlette(
            routes=[
                Route("/v1/ocr", self._ocr, methods=["POST"]),
                Route("/v1/models", self._models),
                Route("/health", self._health),
            ],
            exception_handlers={AllodError: _refused, 404: _not_found, 405: _not_found, Exception: _failed},
            lifespan=self._lifespan,
        )

    @asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncIterator[None]:
        async with self._pool:
            yield

    async def _health(self, _: Request) -> Response:
        return _json({"status": "ok", "workers": self._pool.size, "in_flight": self._in_flight})

    async def _models(self, _: Request) -> Response:
        identity = self._identity
        card = {
            "id": self._model,
            "object": "model",
            "type": "base",
            "created": self._started,
            "owned_by": "allod",
            "capabilities": {"ocr": True, "completion_chat": False},
            "allod": {
                "engine": identity.engine,
                "engine_digest": identity.engine_digest,
                "model_digest": identity.model_digest,
                "origins": identity.origins,
            },
        }
        return _json({"object": "list", "data": [card]})

    async def _ocr(self, request: Request) -> Response:
        if self._in_flight >= OCR_REQUESTS_IN_FLIGHT_MAX:
            raise NotReady("ocr.busy", "every place for a document is taken", retry_after_s=5)
        self._in_flight += 1
        try:
            return await _while_connected(request, self._answer(await _body(request)))
        except ClientDisconnect:
            return Response(status_code=_CLIENT_GONE)
        finally:
            self._in_flight -= 1

    async def _answer(self, body: bytes) -> Response:
        with tempfile.NamedTemporaryFile(prefix="allod-ocr-") as file:
            path = Path(file.name)
            work = await asyncio.to_thread(_stored, body, path)  # megabytes of base64
            del body
            pages = await self._pages(path, work)
        answer = response(
            pages,
            model=self._model,
            document_bytes=work.document_bytes,
            granularity=work.granularity,
            blocks=work.blocks,
            origins=self._identity.origins,
        )
        return Response(await asyncio.to_thread(msgspec.json.encode, answer), media_type="application/json")

    async def _pages(self, path: Path, work: _Work) -> list[PageText | PageFailed]:
        count = await self._pool.count(jobs.Count(str(path), work.kind))
        wanted = shape.selected(work.pages, count, PAGES_PER_REQUEST_MAX)
        if len(wanted) > PAGES_PER_REQUEST_MAX:
            raise TooLarge(
                "document.too-many-pages",
                f"the document has {count} pages; one request reads at most {PAGES_PER_REQUEST_MAX}",
                hint=f'select them, as in "pages": "0-{PAGES_PER_REQUEST_MAX - 1}"',
                param="pages",
            )
        # As many at a time as there are workers: the pool serves in order, so requests take turns.
        turns = asyncio.Semaphore(self._pool.size)

        async def one(index: int) -> PageText | PageFailed:
            async with turns:
                try:
                    return await self._pool.read(jobs.Read(str(path), work.kind, index))
                except AllodError as e:
                    return PageFailed(index, e)

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(index)) for index in wanted]
        pages = [task.result() for task in tasks]
        failed = [page for page in pages if isinstance(page, PageFailed)]
        if len(failed) == len(pages):
            raise failed[0].error
        return pages


def _stored(body: bytes, path: Path) -> _Work:
    """Writes the document to `path`: from here on it is in that file only."""
    asked = shape.parse(body)
    document = extract(asked.document)
    path.write_bytes(document.content)
    return _Work(
        document.kind,
        len(document.content),
        asked.pages,
        asked.confidence_scores_granularity,
        bool(asked.include_blocks),
    )


async def _body(request: Request) -> bytes:
    """The whole body. Raises TooLarge as soon as it is, ClientDisconnect where the client left."""
    received = bytearray()
    async for piece in request.stream():
        received += piece
        if len(received) > BODY_BYTES_MAX:
            raise TooLarge("request.too-large", f"the body is larger than {BODY_BYTES_MAX // MIB} MiB")
    return bytes(received)


async def _while_connected(request: Request, work: Awaitable[Response]) -> Response:
    """The work's response; the work is cancelled when the client leaves. Raises ClientDisconnect then."""
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        return task.result()
    finally:
        task.cancel()
        gone.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, AllodError)
    answer = _json(shape.refusal(error), error.status)
    if isinstance(error, NotReady):
        answer.headers["retry-after"] = str(error.retry_after_s)
    return answer


async def _not_found(request: Request, _: Exception) -> Response:
    error = NotFound("request.unknown-path", f"nothing answers {request.method} {request.url.path}")
    return _json(shape.refusal(error), error.status)


async def _failed(_: Request, __: Exception) -> Response:
    """A defect of ours. Its traceback is in the log; nothing of it goes to the client."""
    error = AllodError("ocr.internal", "the engine failed; its log says why")
    return _json(shape.refusal(error), error.status)


def _json(value: Any, status: int = 200) -> Response:
    return Response(msgspec.json.encode(value), status, media_type="application/json")
