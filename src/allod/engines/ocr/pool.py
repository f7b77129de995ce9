"""N page workers, each a killable process; a job goes to the next free one, in the order jobs were asked.

Whatever happens inside a worker, a job ends in its answer or in an error within PAGE_WALL_SECONDS_MAX of
being started, and the worker that did not answer is replaced. A cancelled job ends its worker: nobody waits
for the page, so its CPU is given back at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys

import msgspec

from allod.engines.ocr import jobs
from allod.engines.ocr.recognise import PageText, Settings
from allod.errors import AllodError, NotReady, TooLarge, Unprocessable, Usage
from allod.limits import PAGE_WALL_SECONDS_MAX

START_TIMEOUT_S = 30.0  # imports on a busy machine
_REFUSALS: dict[int, type[AllodError]] = {400: Usage, 413: TooLarge, 422: Unprocessable}
_SINGLE_THREADED = {
    "OMP_THREAD_LIMIT": "1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MALLOC_ARENA_MAX": "2",
}


class Pool:
    """`async with Pool(...)`: the workers run inside the block."""

    def __init__(self, settings: Settings, workers: int) -> None:
        self._settings = msgspec.json.encode(settings).decode()
        self._size = workers
        self._idle: asyncio.Queue[_Worker | None] = asyncio.Queue()  # None: a place whose worker is gone
        self._alive: set[_Worker] = set()

    @property
    def size(self) -> int:
        return self._size

    async def __aenter__(self) -> Pool:
        for worker in await asyncio.gather(*(self._start() for _ in range(self._size))):
            self._idle.put_nowait(worker)
        return self

    async def __aexit__(self, *_: object) -> None:
        for worker in tuple(self._alive):
            await self._end(worker)

    async def count(self, job: jobs.Count) -> int:
        """How many pages. Raises what the document deserves, as `read` does."""
        answer = await self._ask(job)
        assert isinstance(answer, jobs.Counted)
        return answer.pages

    async def read(self, job: jobs.Read) -> PageText:
        """The page's text. Raises Usage, TooLarge or Unprocessable by what is wrong with it."""
        answer = await self._ask(job)
        assert isinstance(answer, jobs.PageRead)
        return answer.page

    async def _ask(self, job: jobs.Job) -> jobs.Answer:
        place = await self._idle.get()
        worker: _Worker | None = None
        try:
            worker = place or await self._start()
            answer = await worker.ask(job)
        except BaseException:
            self._idle.put_nowait(None)
            if worker is not None:
                await self._end(worker)
            raise
        self._idle.put_nowait(worker)
        if isinstance(answer, jobs.Refused):
            refusal = _REFUSALS.get(answer.status, Unprocessable)
            raise refusal(answer.code, answer.message, hint=answer.hint)
        return answer

    async def _start(self) -> _Worker:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "allod.engines.ocr.worker",
            self._settings,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            start_new_session=True,  # its tesseract is in its group, and is ended with it
            env={**os.environ, **_SINGLE_THREADED},
        )
        worker = _Worker(process)
        self._alive.add(worker)
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                await worker.answer()  # Ready
        except BaseException as e:
            await self._end(worker)
            if isinstance(e, TimeoutError | asyncio.IncompleteReadError):
                raise NotReady(
                    "ocr.worker-not-started", "a page worker did not start", retry_after_s=5
                ) from e
            raise
        return worker

    async def _end(self, worker: _Worker) -> None:
        self._alive.discard(worker)
        await worker.end()


class _Worker:
    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def ask(self, job: jobs.Job) -> jobs.Answer:
        assert self._process.stdin is not None
        try:
            async with asyncio.timeout(PAGE_WALL_SECONDS_MAX):
                self._process.stdin.write(jobs.frame(job))
                await self._process.stdin.drain()
                return await self.answer()
        except TimeoutError as e:
            raise Unprocessable("document.page-too-slow", "the page took too long to read") from e
        except (asyncio.IncompleteReadError, ConnectionError) as e:
            raise await self._post_mortem() from e

    async def answer(self) -> jobs.Answer:
        assert self._process.stdout is not None
        head = await self._process.stdout.readexactly(jobs.LENGTH_BYTES)
        return jobs.answer(await self._process.stdout.readexactly(int.from_bytes(head, "big")))

    async def end(self) -> None:
        """Ends the worker and what it started. Its group outlives it while tesseract runs."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        await self._process.wait()

    async def _post_mortem(self) -> AllodError:
        status = await self._process.wait()
        if status == -signal.SIGXCPU:
            return Unprocessable("document.page-too-slow", "the page took more CPU time than a page may use")
        return Unprocessable(
            "document.page-failed", f"the page ended the worker that read it (status {status})"
        )
