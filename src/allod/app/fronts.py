"""The channel to the front workers: announce a snapshot, know who has taken it.

Newline-delimited JSON on `run/fronts.sock`. The server sends `{"snapshot": N}`; a worker that has loaded
snapshot N answers `{"ack": N, "worker": W}` and once a second sends `{"counters": {...}, "worker": W}`.
`acknowledged(N)` is what makes a revocation immediate: it returns when no connected worker is older than N.
"""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import msgspec

from allod.errors import NotReady

_LINE_BYTES_MAX = 256 * 1024  # counters of a few hundred replicas


class _Message(msgspec.Struct):
    worker: int = -1
    ack: int | None = None
    counters: dict[str, Any] | None = None


class _Worker:
    """One connected front worker."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self.writer = writer
        self.number = -1
        self.acked = 0
        self.counters: dict[str, Any] = {}


class FrontsChannel:
    """Serves the channel; holds what each connected worker last said."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._server: asyncio.Server | None = None
        self._workers: set[_Worker] = set()
        self._version = 0
        self._changed = asyncio.Condition()
        self._decoder = msgspec.json.Decoder(_Message)

    async def start(self) -> None:
        self._path.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._serve, str(self._path), limit=_LINE_BYTES_MAX)
        self._path.chmod(0o600)

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        for worker in tuple(self._workers):
            worker.writer.close()
        self._path.unlink(missing_ok=True)

    def announce(self, version: int) -> None:
        """Tell every connected worker; those that connect later are told on connecting."""
        self._version = version
        for worker in tuple(self._workers):
            self._tell(worker)

    async def acknowledged(self, version: int, *, within_s: float) -> None:
        """Returns when every connected worker has loaded `version`. Raises NotReady `front.stale` after
        `within_s` seconds: the change is stored, and each worker takes it as soon as it answers again."""

        def all_have_it() -> bool:
            return all(w.acked >= version for w in self._workers)

        try:
            async with asyncio.timeout(within_s), self._changed:
                await self._changed.wait_for(all_have_it)
        except TimeoutError:
            stale = sorted(w.number for w in self._workers if w.acked < version)
            raise NotReady(
                "front.stale",
                f"front workers {stale} have not confirmed snapshot {version} within {within_s:g} s",
                hint="allod status shows the workers; `allod down` and `allod up` replaces them",
            ) from None

    @property
    def connected(self) -> int:
        return len(self._workers)

    def counters(self) -> list[dict[str, Any]]:
        """The last counters of each connected worker, by worker number."""
        return [w.counters for w in sorted(self._workers, key=lambda w: w.number) if w.counters]

    def _tell(self, worker: _Worker) -> None:
        if not worker.writer.is_closing():
            worker.writer.write(msgspec.json.encode({"snapshot": self._version}) + b"\n")

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        worker = _Worker(writer)
        self._workers.add(worker)
        if self._version:
            self._tell(worker)
        try:
            while line := await reader.readline():
                await self._take(worker, self._decoder.decode(line))
        except (OSError, ValueError, msgspec.DecodeError):
            pass  # a worker that talks nonsense is dropped like one that died; it reconnects
        finally:
            self._workers.discard(worker)
            async with self._changed:
                self._changed.notify_all()
            with contextlib.suppress(OSError):
                writer.close()

    async def _take(self, worker: _Worker, message: _Message) -> None:
        worker.number = message.worker if message.worker >= 0 else worker.number
        if message.counters is not None:
            worker.counters = message.counters
        if message.ack is not None:
            worker.acked = message.ack
            async with self._changed:
                self._changed.notify_all()
