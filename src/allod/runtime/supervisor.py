"""Keeps the replicas of this node running: the one owner of their state.

Guarantees, all on one event loop:
- a replica that is wanted is started, and started again with a growing pause when it ends;
- a replica that is not wanted, or wanted differently, ends with everything below it;
- replicas outlive this process; the next supervisor over the same folder adopts those whose spec is
  unchanged and ends the others. A pid is never trusted without its start time.

What to do is decided in `decide`; here it is done.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from allod import limits
from allod.clock import Clock
from allod.engines.launch import LaunchSpec
from allod.errors import AllodError, NotFound, NotReady
from allod.runtime import decide, health, logs, process, procfs, sandbox
from allod.runtime.decide import Life, State
from allod.runtime.process import Record, Running
from allod.runtime.sandbox import SandboxReport

_GONE_TIMEOUT_S = 5.0  # the kernel frees a killed process's memory before it is gone


class ReplicaState(msgspec.Struct, frozen=True, kw_only=True):
    """One replica, as it was when it was looked at."""

    id: str
    state: State
    pid: int | None = None  # killing this pid ends everything inside
    rss_bytes: int | None = None  # of all its processes; pages they share count once for each
    restarts: int = 0
    reason: str = ""  # why it is not ready, for people
    sealed: bool = False


class _Slot:
    """What the supervisor holds for one wanted replica."""

    def __init__(self, spec: LaunchSpec, log: Path) -> None:
        self.spec = spec
        self.digest = process.digest_of(spec)
        self.log = log
        self.log_mark = 0  # where the present attempt's output begins
        self.life = Life()
        self.running: Running | None = None
        self.stop = asyncio.Event()
        self.changed = asyncio.Event()
        self.task: asyncio.Task[None] | None = None


class Supervisor:
    """`run_dir/replicas/<id>/` holds each replica's socket, `run_dir/records/<id>.json` what is known of it,
    `log_dir/<id>.log` its output.

    Where `sandbox_report` (by default what `sandbox.probe` says now) has it that nothing can be sealed,
    replicas run unsealed and their state says so.
    """

    def __init__(
        self, run_dir: Path, log_dir: Path, clock: Clock, sandbox_report: SandboxReport | None = None
    ) -> None:
        report = sandbox_report or sandbox.probe()
        self._folder = run_dir / "replicas"
        self._logs = log_dir
        self._clock = clock
        self._bwrap = report.program if report.sealed else None
        self._slots: dict[str, _Slot] = {}
        self._listeners: list[Callable[[ReplicaState], None]] = []
        self._adoptable: dict[str, Record] | None = None  # None until the folder has been read
        self._ensuring = asyncio.Lock()

    async def ensure(self, specs: Sequence[LaunchSpec]) -> None:
        """Makes `specs` what is wanted. Returns once all others have ended; waits for no start."""
        async with self._ensuring:
            wanted = {spec.id: spec for spec in specs}
            if self._adoptable is None:
                self._adoptable = await self._take_over(wanted)
            leaving = [
                slot
                for name, slot in self._slots.items()
                if name not in wanted or process.digest_of(wanted[name]) != slot.digest
            ]
            await asyncio.gather(*(self._retire(slot) for slot in leaving))
            for spec in specs:
                if spec.id not in self._slots:
                    slot = self._slots[spec.id] = _Slot(spec, self._logs / f"{spec.id}.log")
                    adopt = self._adoptable.pop(spec.id, None)
                    slot.task = asyncio.create_task(self._keep(slot, adopt), name=f"replica {spec.id}")

    def views(self) -> list[ReplicaState]:
        return [self._view(slot) for slot in self._slots.values()]

    def subscribe(self, callback: Callable[[ReplicaState], None]) -> None:
        """`callback` hears of every change of a replica's state, on the event loop. It must not block."""
        self._listeners.append(callback)

    async def wait_ready(self, id: str, until: float) -> None:
        """Returns once the replica is ready. `until` is on the clock's monotonic scale, in seconds.

        Raises NotFound `replica.unknown`; NotReady `replica.not-ready` at `until`, or as soon as the replica
        has failed several times in a row.
        """
        if (slot := self._slots.get(id)) is None:
            raise NotFound("replica.unknown", f"there is no replica {id!r}", hint="allod status")
        while slot.life.state != "ready":
            left = until - self._clock.monotonic()
            if left <= 0 or slot.life.crash_looping or slot.life.state == "stopped":
                reason = slot.life.reason or slot.life.state
                hint = f"its log: {slot.log}"
                raise NotReady("replica.not-ready", f"{id} is not ready: {reason}", hint=hint)
            slot.changed.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(slot.changed.wait(), left)

    async def stop_all(self) -> None:
        """Ends every replica of this node, also those that no record names. Nothing of them is left."""
        await self.ensure(())
        await asyncio.to_thread(kill_recorded, self._folder.parent)

    # --- one replica ----------------------------------------------------------------------------------

    async def _keep(self, slot: _Slot, adopt: Record | None) -> None:
        event: decide.Event = decide.Begin()
        if adopt is not None:
            with contextlib.suppress(ProcessLookupError):
                slot.running = Running(adopt, None)
                slot.life = Life(starts=1)
                event = decide.Started()
        while True:
            before = slot.life
            slot.life, action = decide.step(
                before, event, self._clock.monotonic(), ready_timeout_s=slot.spec.ready_timeout_s
            )
            if slot.life.state != before.state:
                self._announce(slot)
            match action:
                case decide.Start():
                    event = await self._start(slot)
                case decide.Look(after_s):
                    event = await self._look(slot, after_s)
                case decide.Kill():
                    event = await self._kill(slot)
                case decide.Rest(for_s):
                    event = await self._rest(slot, for_s)
                case decide.Finish():
                    return

    async def _start(self, slot: _Slot) -> decide.Event:
        logs.rotate(slot.log)
        slot.log_mark = logs.mark(slot.log)
        try:
            slot.running = await process.start(slot.spec, slot.log, bwrap=self._bwrap)
        except AllodError as e:
            return decide.Exited(_because(e.message, logs.last_line(slot.log, slot.log_mark)))
        return decide.Started()

    async def _look(self, slot: _Slot, after_s: float) -> decide.Event:
        running = slot.running
        assert running is not None
        timeout_s = min(limits.HEALTH_TIMEOUT_S, slot.spec.ready_timeout_s)
        asking = asyncio.create_task(_ask_later(slot.spec, after_s, timeout_s))
        try:
            await _first(None, asking, running.ended, slot.stop)
            if slot.stop.is_set():
                return decide.StopAsked()
            if running.ended.is_set():
                how = await running.exit_reason()
                slot.running = None
                return decide.Exited(_because(how, logs.last_line(slot.log, slot.log_mark)))
            logs.rotate(slot.log)
            reason = asking.result()
            return decide.Silent(reason) if reason else decide.Answered()
        finally:
            asking.cancel()

    async def _kill(self, slot: _Slot) -> decide.Event:
        if slot.running is not None:
            await slot.running.terminate()
            slot.running = None
        return decide.Exited("was stopped")

    async def _rest(self, slot: _Slot, for_s: float) -> decide.Event:
        await _first(for_s, slot.stop)
        return decide.StopAsked() if slot.stop.is_set() else decide.Rested()

    async def _retire(self, slot: _Slot) -> None:
        slot.stop.set()
        if slot.task is not None:
            await slot.task
        del self._slots[slot.spec.id]
        process.forget(slot.spec.socket.parent)

    # --- looking and telling --------------------------------------------------------------------------

    def _view(self, slot: _Slot) -> ReplicaState:
        pid = slot.running.record.leader.pid if slot.running else None
        return ReplicaState(
            id=slot.spec.id,
            state=slot.life.state,
            pid=pid,
            rss_bytes=procfs.rss_bytes(pid) if pid else None,
            restarts=slot.life.restarts,
            reason=slot.life.reason,
            sealed=slot.running.record.sealed if slot.running else self._bwrap is not None,
        )

    def _announce(self, slot: _Slot) -> None:
        slot.changed.set()
        view = self._view(slot)
        for listener in self._listeners:
            listener(view)

    async def _take_over(self, wanted: dict[str, LaunchSpec]) -> dict[str, Record]:
        """The living replicas that are still wanted as they are; all others of this folder are ended."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        kept: dict[str, Record] = {}
        for folder in process.recorded(self._folder):
            record = process.read_record(folder)
            spec = wanted.get(folder.name)
            if record is not None and spec is not None and self._same(record, spec):
                kept[folder.name] = record
                continue
            if record is not None:
                process.kill(record)
            process.forget(folder)
        known = frozenset(p for r in kept.values() for p in _family(r))
        await asyncio.to_thread(process.kill_strays, self._folder, known)
        return kept

    def _same(self, record: Record, spec: LaunchSpec) -> bool:
        return (
            record.boot == procfs.boot_id()
            and procfs.alive(record.leader)
            and record.spec == process.digest_of(spec)
            and record.sealed == (self._bwrap is not None)
        )


def kill_recorded(run_dir: Path) -> int:
    """Ends every replica that a supervisor over `run_dir` left, without one. Returns how many had a record.

    For `allod down`, after the control process is gone: nothing of a replica is left when it returns.
    """
    folder = run_dir / "replicas"
    count = 0
    for one in process.recorded(folder):
        if (record := process.read_record(one)) is not None:
            process.kill(record)
            count += 1
    deadline = time.monotonic() + _GONE_TIMEOUT_S
    while process.kill_strays(folder) and time.monotonic() < deadline:
        time.sleep(0.01)
    for one in process.recorded(folder):
        process.forget(one)
    return count


def _family(record: Record) -> list[procfs.Pid]:
    """Every process of a living replica."""
    found = [record.leader, record.outer]
    waiting = [record.leader.pid]
    while waiting:
        for pid in procfs.children(waiting.pop()):
            waiting.append(pid)
            if one := procfs.identify(pid):
                found.append(one)
    return found


async def _ask_later(spec: LaunchSpec, after_s: float, timeout_s: float) -> str:
    await asyncio.sleep(after_s)
    return await health.ask(spec.socket, spec.health_path, timeout_s)


async def _first(timeout_s: float | None, *what: asyncio.Event | asyncio.Task[str]) -> None:
    """Returns when an event is set or a task is done, or after `timeout_s`. Cancels none of the tasks."""
    events = [w for w in what if isinstance(w, asyncio.Event)]
    if any(e.is_set() for e in events):
        return
    waiters = [asyncio.ensure_future(e.wait()) for e in events]
    tasks = [w for w in what if not isinstance(w, asyncio.Event)]
    try:
        await asyncio.wait([*waiters, *tasks], timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for waiter in waiters:
            waiter.cancel()


def _because(what: str, line: str) -> str:
    return f"{what}: {line}" if line else what
