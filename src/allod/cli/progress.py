"""A bar for what takes long: bytes, rate and time left, on a terminal only.

Guarantees: nothing is written where stderr is no terminal, and nothing of it stays on the screen afterwards.
"""

from __future__ import annotations

import shutil
import sys
import threading
import time
from typing import TextIO

from allod.cli.output import size

_REDRAW_S = 0.1
_WINDOW_S = 5.0  # the rate is of the last seconds: what it is now, not what it was


class Bar:
    """Counts bytes from any thread; draws them in one line of stderr. Use as a context."""

    def __init__(self, *, shown: bool, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._shown = shown and self._stream.isatty()
        self._lock = threading.Lock()
        self._total = self._here = self._moved = 0
        self._began = time.monotonic()
        self._drawn = 0.0
        self._marks: list[tuple[float, int]] = []

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *_: object) -> None:
        if self._shown:
            self._stream.write("\r\x1b[K")
            self._stream.flush()

    def total(self, count: int) -> None:
        with self._lock:
            self._total = count

    def have(self, count: int) -> None:
        with self._lock:
            self._here += count

    def moved(self, count: int) -> None:
        with self._lock:
            self._moved += count
            now = time.monotonic()
            if self._shown and now - self._drawn >= _REDRAW_S:
                self._drawn = now
                self._draw(now)

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._began

    def _draw(self, now: float) -> None:
        self._marks.append((now, self._moved))
        while now - self._marks[0][0] > _WINDOW_S:
            del self._marks[0]
        line = text(self._here + self._moved, self._total, rate(self._marks), width=_columns())
        self._stream.write(f"\r{line}\x1b[K")
        self._stream.flush()


def _columns() -> int:
    return shutil.get_terminal_size((80, 24)).columns


def rate(marks: list[tuple[float, int]]) -> float:
    """Bytes per second between the first and the last mark; 0 where that cannot be said yet."""
    (began, first), (now, last) = marks[0], marks[-1]
    return (last - first) / (now - began) if now > began else 0.0


def text(done: int, total: int, per_second: float, *, width: int) -> str:
    """One line: what is there, of how much, how fast, and how long it takes yet."""
    said = f"{size(done)} of {size(total)}"
    if per_second > 0:
        said += f", {size(per_second)}/s, {_time(max(0, total - done) / per_second)} left"
    share = min(1.0, done / total) if total else 1.0
    room = min(30, width - len(said) - 9)
    if room < 5:
        return said[: width - 1]
    full = int(room * share)
    return f"{'█' * full}{'░' * (room - full)} {share:4.0%}  {said}"


def _time(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes}:{rest:02}"
