"""The thread that gives durable receipts their place in the tree, and the only user of the log.

What the fronts spooled is integrated at least every interval; a failure (disk full, say) is kept for the
readiness report and tried again: the receipts wait in the spool, where they are safe. All questions to the
log go through `ask`, one at a time.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from allod.clock import Clock
from allod.errors import AllodError
from allod.ledger.drain import SpoolReader
from allod.ledger.log import Log
from allod.ledger.segment import Damage

T = TypeVar("T")

_RETRY_S = 1.0  # after a failure: soon enough for people, rare enough for a full disk
_DAMAGE_KEPT = 100  # the first findings tell the story


class Sequencer:
    def __init__(self, log: Log, spool: Path, clock: Clock, *, interval_s: float) -> None:
        self._log = log
        log.spool = spool
        self._reader = SpoolReader(spool, clock)
        self._counter = SpoolReader(spool, clock)  # looks without taking: its place is not the other's
        self._clock = clock
        self._interval_s = interval_s
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sequencer", daemon=True)
        self.failure: AllodError | None = None
        self.damage: list[Damage] = []
        self.integrated_us = clock.now_us()

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Integrates what is there, then ends the thread and closes the log."""
        self._stop.set()
        self._wake.set()
        self._thread.join()
        self._log.close()

    async def ask(self, question: Callable[[Log], T]) -> T:
        """Runs `question` over the log, alone with it, in a thread. Raises what it raises."""

        def alone() -> T:
            with self._lock:
                return question(self._log)

        return await asyncio.to_thread(alone)

    def hurry(self) -> None:
        """Somebody waits for a receipt: integrate now."""
        self._wake.set()

    def waiting(self) -> int:
        """Receipts on disk without a place in the tree; counted up to one batch."""
        with self._lock:
            return len(self._counter.drain(self._log.cursors).entries)

    def _run(self) -> None:
        while True:
            last = self._stop.is_set()
            try:
                while self._integrate():
                    pass
                self.failure = None
            except AllodError as e:
                self.failure = e
            if last:
                return
            self._wake.wait(_RETRY_S if self.failure else self._interval_s)
            self._wake.clear()

    def _integrate(self) -> bool:
        """One batch. True if there may be more."""
        with self._lock:
            batch = self._reader.drain(self._log.cursors)
            if batch.entries or batch.cursors != dict(self._log.cursors):
                self._log.append(batch.entries, batch.cursors)
                self._reader.release(self._log.cursors)
                self.integrated_us = self._clock.now_us()
            self.damage.extend(batch.damage[: _DAMAGE_KEPT - len(self.damage)])
        return bool(batch.entries)
