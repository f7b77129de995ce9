"""The worker's end of the fronts' channel: takes snapshots, confirms them, reports counters.

Newline-delimited JSON on `run/fronts.sock`. While control is away the worker goes on with what it has, and
tries to reconnect for ever.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

_LINE_BYTES_MAX = 4096
_RECONNECT_S = 0.2
_REPORT_S = 1.0


class _Announcement(msgspec.Struct):
    snapshot: int


class Channel:
    """`load()` takes the snapshot file and returns the version in force; `counters()` is what is reported."""

    def __init__(
        self, path: Path, worker: int, load: Callable[[], int], counters: Callable[[], dict[str, Any]]
    ) -> None:
        self._path = path
        self._worker = worker
        self._load = load
        self._counters = counters
        self.connected = False

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            with contextlib.suppress(OSError, ValueError, msgspec.DecodeError):
                await self._converse()
            self.connected = False
            await asyncio.sleep(_RECONNECT_S)

    async def _converse(self) -> None:
        reader, writer = await asyncio.open_unix_connection(str(self._path), limit=_LINE_BYTES_MAX)
        self.connected = True
        report = asyncio.ensure_future(self._report(writer))
        try:
            self._acknowledge(writer)
            while line := await reader.readline():
                msgspec.json.decode(line, type=_Announcement)
                self._acknowledge(writer)
        finally:
            report.cancel()
            writer.close()

    def _acknowledge(self, writer: asyncio.StreamWriter) -> None:
        """Says which version is in force: still the old one, where the new one could not be taken."""
        version = self._load()
        if version:
            self._say(writer, {"ack": version, "worker": self._worker})

    async def _report(self, writer: asyncio.StreamWriter) -> None:
        while not writer.is_closing():
            self._say(writer, {"counters": self._counters(), "worker": self._worker})
            await asyncio.sleep(_REPORT_S)

    def _say(self, writer: asyncio.StreamWriter, message: dict[str, Any]) -> None:
        if not writer.is_closing():
            writer.write(msgspec.json.encode(message) + b"\n")
