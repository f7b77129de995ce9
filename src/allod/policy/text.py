"""Where things stand in policy text: statements, their lines, and the file each line came from.

Cedar's own messages name no line. The combined text of a pack carries a marker line before each file
(`//# 20-confidential.cedar`), so that any later stage, also one that was handed nothing but the text, can say
`20-confidential.cedar:12`. Pure functions.
"""

from __future__ import annotations

import msgspec

MARKER = "//# "


class Statement(msgspec.Struct, frozen=True, kw_only=True):
    """One policy as written. Cedar numbers them `policy0`, `policy1`… in this order."""

    line: int  # 1-based line of its first token in the whole text
    text: str


def statements(text: str) -> tuple[Statement, ...]:
    """The policies of a text, split at each `;` that stands outside of strings and comments."""
    found: list[Statement] = []
    start: int | None = None
    i = 0
    while i < len(text):
        c = text[i]
        if text.startswith("//", i):
            i = _line_end(text, i)
            continue
        if start is None and not c.isspace():
            start = i
        if c == '"':
            i = _string_end(text, i)
            continue
        if c == ";" and start is not None:
            found.append(Statement(line=text.count("\n", 0, start) + 1, text=text[start : i + 1]))
            start = None
        i += 1
    if start is not None:
        found.append(Statement(line=text.count("\n", 0, start) + 1, text=text[start:]))
    return tuple(found)


def place(text: str, line: int) -> str:
    """`20-confidential.cedar:12` for a line of combined text; `line 12` where no file is marked above it."""
    lines = text.split("\n")
    for above in range(min(line, len(lines)) - 1, -1, -1):
        if lines[above].startswith(MARKER):
            return f"{lines[above][len(MARKER) :].strip()}:{line - above - 1}"
    return f"line {line}"


def _line_end(text: str, i: int) -> int:
    end = text.find("\n", i)
    return len(text) if end < 0 else end


def _string_end(text: str, i: int) -> int:
    i += 1
    while i < len(text) and text[i] != '"':
        i += 2 if text[i] == "\\" else 1
    return i + 1
