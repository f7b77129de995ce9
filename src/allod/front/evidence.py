"""Evidence before answers: what was written is made durable for as many exchanges as wait at once.

`when_durable` promises: its callback runs on the loop, with True once everything written to the spool
before the call is on the disk, or with False when the disk refused. After a refusal nothing is admitted any
more.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from allod.errors import AllodError, NotReady
from allod.front.aio import Syncer
from allod.front.problems import Problem
from allod.ledger.spool import Spool

Told = Callable[[bool], None]
_REOPEN_S = 1.0


class Evidence:
    """The spool of one worker, on its loop."""

    def __init__(self, open_spool: Callable[[], Spool], loop: asyncio.AbstractEventLoop) -> None:
        self._open_spool = open_spool
        self._spool: Spool | None = None
        self._opened_at = -_REOPEN_S
        self._loop = loop
        self._waiting: list[Told] = []
        self._syncing: list[Told] = []
        self._busy = False  # a sync is under way or about to be
        self._position = 0
        self._room: asyncio.Future[None] | None = None
        self._syncer: Syncer | None = None
        self.failed: NotReady | None = None
        with contextlib.suppress(OSError):
            self._syncer = Syncer()
            loop.add_reader(self._syncer.eventfd, self._signalled)

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
            if self.failed is not None:
                raise self.failed
            (self._spool or self._ready()).begin(intent)
        except AllodError as e:
            raise Problem.of(e) from None

    def end(self, receipt_id: str, leaf: bytes, key: bytes) -> None:
        """The end of what was begun. A spool that can not take it releases nothing any more."""
        try:
            (self._spool or self._ready()).end(receipt_id, leaf, key)
        except AllodError as e:
            self.failed = NotReady(e.code, e.message, hint=e.hint, retry_after_s=5)

    def when_durable(self, told: Told) -> None:
        self._waiting.append(told)
        if not self._busy:
            self._busy = True
            self._loop.call_soon(self._sync)  # after this round of the loop: its exchanges share one sync

    async def close(self) -> None:
        """Waits for the sync under way, then syncs and closes the spool."""
        while self._busy:  # noqa: ASYNC110 — once, at the end
            await asyncio.sleep(0.001)
        if self._room is not None:
            await asyncio.wait([self._room])
        if self._syncer is not None:
            self._loop.remove_reader(self._syncer.eventfd)
            self._syncer.close()
        if self._spool is not None:
            with contextlib.suppress(NotReady):
                self._spool.close()

    def _ready(self) -> Spool:
        """The spool; one that could not be opened (a full disk at start) is tried again once a second."""
        if self._spool is None:
            now = self._loop.time()
            if now - self._opened_at < _REOPEN_S:
                raise NotReady("ledger.not-open", "the spool could not be opened", retry_after_s=2)
            self._opened_at = now
            try:
                self._spool = self._open_spool()
            except OSError as e:
                raise NotReady(
                    "ledger.io",
                    f"the spool cannot be opened: {e.strerror}",
                    hint="allod doctor",
                    retry_after_s=2,
                ) from e
        return self._spool

    def _sync(self) -> None:
        self._syncing, self._waiting = self._waiting, []
        try:
            spool = self._ready()
            self._position, files = spool.sync_files()
            if not files:
                self._synced()
            elif self._syncer is not None:
                self._submit(spool, self._syncer, files)
            else:
                self._in_thread(spool)
        except AllodError as e:
            self._refused(e)

    def _submit(self, spool: Spool, syncer: Syncer, files: list[int]) -> None:
        try:
            syncer.submit(files)
        except OSError:
            self._in_thread(spool)

    def _signalled(self) -> None:
        syncer, spool = self._syncer, self._spool
        assert syncer is not None
        assert spool is not None
        try:
            if not syncer.completed():
                return
        except OSError as e:
            spool.sync_failed(e)
            self._refused(NotReady("ledger.io", f"the spool cannot be synced: {e.strerror}", retry_after_s=5))
            return
        spool.sync_done(self._position)
        if spool.wants_room and (self._room is None or self._room.done()):
            self._room = self._loop.run_in_executor(None, spool.make_room)
        self._synced()

    def _in_thread(self, spool: Spool) -> None:
        def done(future: asyncio.Future[int]) -> None:
            error = future.exception()
            if error is None:
                self._synced()
            else:
                self._refused(error)

        self._loop.run_in_executor(None, spool.sync).add_done_callback(done)

    def _refused(self, error: BaseException) -> None:
        code = error.code if isinstance(error, AllodError) else "ledger.io"
        self.failed = NotReady(code, f"the spool cannot be synced: {error}", retry_after_s=5)
        self._synced()

    def _synced(self) -> None:
        done, self._syncing = self._syncing, []
        if self._waiting:
            self._loop.call_soon(self._sync)
        else:
            self._busy = False
        ok = self.failed is None
        for told in done:
            told(ok)
