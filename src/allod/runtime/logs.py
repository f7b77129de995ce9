"""Bounded logs of replicas. The replica appends to its file itself; nothing here has to be alive for that."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from allod import limits

_TAIL_BYTES = 4096
_REASON_CHARS_MAX = 300


def rotate(log: Path, bytes_max: int = limits.REPLICA_LOG_BYTES_MAX) -> bool:
    """Copies a log that has grown past `bytes_max` to `.1` and empties it in place.

    In place, because the replica holds it open for appending and goes on at the new end. What it writes
    between the copy and the cut is lost: a log is talk, not evidence.
    """
    try:
        if log.stat().st_size <= bytes_max:
            return False
        shutil.copyfile(log, log.with_name(log.name + ".1"))
        os.truncate(log, 0)
        return True
    except FileNotFoundError:
        return False


def mark(log: Path) -> int:
    """Where the log ends now, to be handed to `last_line` later."""
    try:
        return log.stat().st_size
    except FileNotFoundError:
        return 0


def last_line(log: Path, since: int = 0) -> str:
    """The last line with anything on it that was written after `since`; empty where there is none."""
    try:
        with log.open("rb") as f:
            end = f.seek(0, os.SEEK_END)
            f.seek(max(min(since, end), end - _TAIL_BYTES))
            text = f.read().decode(errors="replace")
    except FileNotFoundError:
        return ""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:_REASON_CHARS_MAX] if lines else ""
