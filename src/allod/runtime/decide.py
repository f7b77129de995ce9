"""What to do with one replica next. Pure: no clock, no process, no socket.

`step` takes the replica's life so far and one event, and gives the life after it and the one action to carry
out; carrying out an action yields exactly one event. So a replica has no concurrency of its own, and a crash
loop cannot be a hot loop: every path from `Exited` to `Start` leads through `Rest`.

    Begin ─► Start ─► Started ─► Look ─► Answered ─► Look …
                 └─► Exited ─► Rest ─► Rested ─► Start
             Look ─► Silent ─► Look … ─► Kill ─► Exited
    StopAsked ─► Kill ─► Exited ─► Finish           (at any point)
"""

from __future__ import annotations

from typing import Literal

import msgspec

from allod import limits

State = Literal["starting", "ready", "unhealthy", "stopped", "failed"]


class Begin(msgspec.Struct, frozen=True):
    """Nothing runs yet."""


class Started(msgspec.Struct, frozen=True):
    """A process runs: a new one, or an adopted one."""


class Answered(msgspec.Struct, frozen=True):
    """The health path said 200."""


class Silent(msgspec.Struct, frozen=True):
    """The health path said something else, or nothing."""

    reason: str


class Exited(msgspec.Struct, frozen=True):
    """No process runs (any more), also where none could be started."""

    reason: str


class Rested(msgspec.Struct, frozen=True):
    """The back-off is over."""


class StopAsked(msgspec.Struct, frozen=True):
    """The replica is no longer wanted."""


Event = Begin | Started | Answered | Silent | Exited | Rested | StopAsked


class Start(msgspec.Struct, frozen=True):
    pass


class Look(msgspec.Struct, frozen=True):
    """Wait, then ask the health path; an exit or a stop ends the wait early."""

    after_s: float


class Kill(msgspec.Struct, frozen=True):
    pass


class Rest(msgspec.Struct, frozen=True):
    for_s: float


class Finish(msgspec.Struct, frozen=True):
    pass


Action = Start | Look | Kill | Rest | Finish


class Life(msgspec.Struct, frozen=True, kw_only=True):
    """One replica so far. Times are monotonic seconds."""

    state: State = "starting"
    since: float = 0.0  # when `state` began
    starts: int = 0
    failures: int = 0  # failed starts and crashes in a row
    silences: int = 0  # unanswered looks in a row
    reason: str = ""  # why it is not ready, for people
    stopping: bool = False
    running: bool = False
    killed: bool = False  # by a decision taken here, whose reason stays

    @property
    def restarts(self) -> int:
        return max(0, self.starts - 1)

    @property
    def crash_looping(self) -> bool:
        return self.failures >= limits.CRASH_LOOP_STARTS


def step(life: Life, event: Event, now: float, *, ready_timeout_s: float) -> tuple[Life, Action]:
    """The life after `event`, and what to do about it."""
    match event:
        case StopAsked():
            life = _with(life, stopping=True)
            return (life, Kill()) if life.running else (_enter(life, "stopped", now, ""), Finish())
        case Begin() | Rested():
            return _enter(_with(life, starts=life.starts + 1), "starting", now, life.reason), Start()
        case Started():
            life = _enter(_with(life, running=True, killed=False, silences=0), "starting", now, life.reason)
            return life, Look(0.0)
        case Answered():
            return _answered(life, now)
        case Silent(reason):
            return _silent(life, reason, now, ready_timeout_s)
        case Exited(reason):
            return _exited(life, reason, now)


def _answered(life: Life, now: float) -> tuple[Life, Action]:
    life = _with(life, silences=0)
    if life.state != "ready":
        life = _enter(life, "ready", now, "")
    elif life.failures and now - life.since >= limits.RESTART_STEADY_S:
        life = _with(life, failures=0)
    return life, Look(limits.HEALTH_READY_INTERVAL_S)


def _silent(life: Life, reason: str, now: float, ready_timeout_s: float) -> tuple[Life, Action]:
    life = _with(life, silences=life.silences + 1)
    waited = now - life.since
    if life.state == "starting":
        if waited >= ready_timeout_s:
            why = f"was not ready within {ready_timeout_s:.0f} s: {reason}"
            return _with(life, reason=why, killed=True), Kill()
        # Often at first, because a wake-up waits for it; then a tenth of the time it already took.
        return life, Look(max(limits.HEALTH_STARTING_INTERVAL_S, min(1.0, waited / 10)))
    if life.state == "unhealthy" and waited >= limits.UNHEALTHY_RESTART_S:
        why = f"did not answer for {waited:.0f} s: {reason}"
        return _with(life, reason=why, killed=True), Kill()
    if life.state == "ready" and life.silences >= limits.HEALTH_FAILURES_MAX:
        life = _enter(life, "unhealthy", now, reason)
    return life, Look(limits.HEALTH_READY_INTERVAL_S)


def _exited(life: Life, reason: str, now: float) -> tuple[Life, Action]:
    if life.stopping:
        return _enter(_with(life, running=False), "stopped", now, ""), Finish()
    steady = life.state == "ready" and now - life.since >= limits.RESTART_STEADY_S
    failures = 1 if steady else life.failures + 1
    if life.killed:
        reason = life.reason
    life = _with(life, running=False, failures=failures, silences=0)
    return _enter(life, "failed", now, reason), Rest(back_off(failures))


def back_off(failures: int) -> float:
    """Seconds before the next start after `failures` failures in a row (from 1)."""
    doubled: float = limits.RESTART_BACKOFF_FIRST_S * 2.0 ** min(failures - 1, 16)
    return min(limits.RESTART_BACKOFF_MAX_S, doubled)


def _enter(life: Life, state: State, now: float, reason: str) -> Life:
    return _with(life, state=state, since=now, reason=reason)


def _with(life: Life, **changes: object) -> Life:
    return msgspec.structs.replace(life, **changes)
