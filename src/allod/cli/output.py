"""What a verb says: data on stdout, talk on stderr.

With `--json` stdout holds exactly one object, on success and on failure. Colour only where a terminal asked
for it, never with NO_COLOR (no-color.org); nothing is ever only told by colour.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from typing import Any, TextIO

import msgspec

from allod.clock import iso
from allod.errors import AllodError

_STYLES = {"bold": "1", "red": "31", "green": "32", "yellow": "33", "dim": "2"}
_WIDTH_MIN = 60
_CALENDAR_ENDS_US = 253_402_300_799_000_000  # the last second of the year 9999


class Out:
    """The two streams of one run of the command."""

    def __init__(self, *, as_json: bool, stdout: TextIO | None = None, stderr: TextIO | None = None) -> None:
        self.as_json = as_json
        self._stdout = stdout or sys.stdout
        self._stderr = stderr or sys.stderr

    @property
    def interactive(self) -> bool:
        """Whether a person reads the data as it comes."""
        return self._stdout.isatty() and not self.as_json

    def data(self, text: str, *, end: str = "\n") -> None:
        self._stdout.write(text + end)
        self._stdout.flush()

    def binary(self, data: bytes) -> None:
        """Data that is not text."""
        self._stdout.buffer.write(data)
        self._stdout.flush()

    def one(self, value: object) -> None:
        """The one object of `--json`. Structs are written by their field names."""
        self.data(json.dumps(msgspec.to_builtins(value), indent=2, ensure_ascii=False))

    def result(self, value: object, lines: Sequence[str]) -> None:
        """`value` with `--json`, else `lines`."""
        if self.as_json:
            self.one(value)
        elif lines:
            self.data("\n".join(lines))

    def say(self, text: str) -> None:
        """Talk: progress, what to do next. Silent with `--json`, where nobody reads along."""
        if not self.as_json:
            self._stderr.write(text + "\n")
            self._stderr.flush()

    def error(self, error: AllodError) -> None:
        """What went wrong, why, and the next step."""
        if self.as_json:
            self.one({"error": error.as_dict()})
            return
        self.say(f"{self.paint(f'error[{error.code}]', 'red', self._stderr)}: {error.message}")
        if error.hint:
            self.say(f"  next: {error.hint}")

    def paint(self, text: str, style: str, stream: TextIO | None = None) -> str:
        stream = stream or self._stdout
        if not stream.isatty() or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
            return text
        return f"\x1b[{_STYLES[style]}m{text}\x1b[0m"

    def mark(self, ok: bool) -> str:
        """The five columns that begin a line of findings."""
        return f"{self.paint('ok', 'green')}   " if ok else f"{self.paint('FAIL', 'red')} "


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    """Left-aligned columns two spaces apart. The last column is never padded. No rows: no lines."""
    if not rows:
        return []
    cells = [[str(c) for c in row] for row in (header, *rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    return ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in cells]


def fields(pairs: Sequence[tuple[str, object]]) -> list[str]:
    """`name  value` lines with the values aligned. What is empty is left out."""
    shown = [(name, str(value)) for name, value in pairs if value not in ("", None, ())]
    width = max((len(name) for name, _ in shown), default=0)
    return [f"{name.ljust(width)}  {value}" for name, value in shown]


def wrapped(text: str, indent: str) -> Iterator[str]:
    """`text` as indented lines that fit the terminal."""
    width = max(_WIDTH_MIN, min(shutil.get_terminal_size((100, 24)).columns, 120)) - len(indent)
    line = ""
    for word in text.split():
        if line and len(line) + 1 + len(word) > width:
            yield indent + line
            line = word
        else:
            line = f"{line} {word}".strip()
    if line:
        yield indent + line


def moment(us: int) -> str:
    """A time for people; what lies beyond the calendar is "never"."""
    return iso(us) if us < _CALENDAR_ENDS_US else "never"


def day(us: int) -> str:
    """The day of a time."""
    return moment(us)[:10]


def size(count: float | None) -> str:
    """Bytes for people, in powers of 1024."""
    if count is None:
        return "-"
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024 or unit == "GiB":
            return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.1f} {unit}"
        count /= 1024
    raise AssertionError


def as_mapping(value: object) -> dict[str, Any]:
    """A struct as its JSON object, to be changed before it is shown."""
    built = msgspec.to_builtins(value)
    assert isinstance(built, dict)
    return built
