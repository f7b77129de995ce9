"""Evidence before answers: one thread makes what was written durable, for as many exchanges as wait at once.

`when_durable` promises: its callback runs on the loop, with True once everything written to the spool before the call is
on the disk, or with False when the disk refused. After a refusal nothing is admitted any more.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Protocol

from allod.errors import AllodError, NotReady
from allod.front.problems import Problem


class SpoolPort(Protocol):
    """What `ledger.spool.Spool` is to the front."""

    def check(self) -> None: ...
    def begin(self, intent: bytes) -> int: ...
    def end(self, receipt_id: str, leaf: bytes, key: bytes, opening: bytes = b"") -> int: ...
    def sync(self) -> int: ...
    def close(self) -> None: ...


Told = Callable[[bool], None]
_REOPEN_S = 1.0


class Evidence:
    """The spool of one worker. Everything but the syncing thread runs on the loop."""

    def __init__(self, open_spool: Callable[[], SpoolPort], loop: asyncio.AbstractEventLoop) -> None:
        self._open_spool = open_spool
        self._spool: SpoolPort | None = None
        self._opened_at = -_REOPEN_S
        self._loop = loop
        self._waiting: list[Told] = []
        self._syncing: list[Told] = []
        self._busy = False  # a sync is under way or about to be
        self._go = threading.Semaphore(0)
        self._stopped = False
        self.failed: NotReady | None = None
        self._thread = threading.Thread(target=self._run, name="spool-sync", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raises Problem 503 where no further receipt could be kept."""
        try:
            if self.failed is not None:
                raise self.failed
            self._ready().check()
        except AllodError as e:
            raise Problem.of(e) from None

    def begin(self, intent: bytes) -> None:
        """Raises Problem as `check`; nothing is written then."""
        try:
            self._ready().begin(intent)
        except AllodError as e:
            raise Problem.of(e) from e

    def end(self, receipt_id: str, leaf: bytes, key: bytes) -> None:
        """The end of what was begun. A spool that can not take it releases nothing any more."""
        try:
            self._ready().end(receipt_id, leaf, key)
        except AllodError as e:
            self.failed = NotReady(e.code, e.message, hint=e.hint, retry_after_s=5)

    def _ready(self) -> SpoolPort:
        """The spool; one that could not be opened (a full disk at start) is tried again once a second."""
        if self._spool is None:
            now = self._loop.time()
            if now - self._opened_at < _REOPEN_S:
                raise NotReady("ledger.not-open", "the spool could not be opened", retry_after_s=2)
            self._opened_at = now
            self._spool = self._open_spool()
        return self._spool

    def when_durable(self, told: Told) -> None:
        self._waiting.append(told)
        if not self._busy:
            self._busy = True
            self._loop.call_soon(self._kick)  # after this round of the loop: its exchanges share one sync

    def close(self) -> None:
        """Waits for the sync under way, then syncs and closes the spool."""
        self._stopped = True
        self._go.release()
        self._thread.join()
        if self._spool is not None:
            self._spool.close()

    def _kick(self) -> None:
        self._syncing, self._waiting = self._waiting, []
        self._go.release()

    def _run(self) -> None:
        while True:
            self._go.acquire()
            if self._stopped:
                return
            try:
                if self._spool is not None:
                    self._spool.sync()
            except NotReady as e:
                self.failed = e
            except Exception as e:
                # an unforeseen failure is a failure of the disk as far as answers are concerned
                self.failed = NotReady(
                    "ledger.io", f"the spool cannot be synced ({type(e).__name__})", retry_after_s=5
                )
            self._loop.call_soon_threadsafe(self._synced)

    def _synced(self) -> None:
        done, self._syncing = self._syncing, []
        if self._waiting:
            self._kick()
        else:
            self._busy = False
        ok = self.failed is None
        for told in done:
            told(ok)
