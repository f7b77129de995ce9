"""Time, injected. Wall time handed out here never runs backwards within a process.

A receipt whose end precedes its start would be evidence against us; when the machine's clock is stepped
back, `SystemClock.now_us` stands still until real time has caught up (RFC 9557 has nothing to add: it is
still UTC microseconds since 1970).
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    def now_us(self) -> int:
        """UTC microseconds since 1970-01-01, never smaller than a value handed out before."""
        ...

    def monotonic(self) -> float:
        """Seconds from an arbitrary start, unaffected by clock steps."""
        ...


class SystemClock:
    def __init__(self) -> None:
        self._last_us = 0

    def now_us(self) -> int:
        now = time.time_ns() // 1000
        if now < self._last_us:
            return self._last_us
        self._last_us = now
        return now

    def monotonic(self) -> float:
        return time.monotonic()


class ManualClock:
    """A clock that a test moves by hand."""

    def __init__(self, now_us: int = 1_700_000_000_000_000) -> None:
        self._now_us = now_us
        self._monotonic = 0.0

    def now_us(self) -> int:
        return self._now_us

    def monotonic(self) -> float:
        return self._monotonic

    def advance(self, seconds: float) -> None:
        self._now_us += int(seconds * 1_000_000)
        self._monotonic += seconds


def iso(us: int) -> str:
    """RFC 3339 UTC with milliseconds, for people."""
    moment = datetime.fromtimestamp(us / 1_000_000, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
