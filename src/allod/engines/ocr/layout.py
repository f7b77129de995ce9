"""From lines to a page: reading order, paragraphs, headings, Markdown. Pure.

The order is found by cutting the page where a blank gap runs right through it: first the wide vertical gaps
(columns), then the horizontal ones (paragraphs), again inside each piece.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from itertools import pairwise
from statistics import median

import msgspec

from allod.engines.ocr.text import Block, Line, Word, enclosing

COLUMN_GAP_LINES = 1.6  # a vertical gap this many line heights wide parts columns
PARAGRAPH_GAP_LINES = 0.9  # a horizontal gap this many line heights tall parts paragraphs
COLUMN_LINES_MIN = 4  # fewer lines on a side are a table's cells or an address, not a column
TITLE_HEIGHT = 1.6  # times the page's median letter height
TITLE_CHARACTERS_MAX = 80
TITLE_CONFIDENCE = 90.0
_MARKUP = re.compile(r"^(#{1,6} |>|```|~~~)")


class Placed(msgspec.Struct, frozen=True):
    """One word and where it starts in the Markdown."""

    word: Word
    start: int


class Page(msgspec.Struct, frozen=True):
    markdown: str
    words: tuple[Placed, ...]


def render(blocks: Sequence[Block]) -> Page:
    """Markdown: blank lines between paragraphs, line ends kept (an address is its lines), `# ` for titles."""
    parts: list[str] = []
    placed: list[Placed] = []
    at = 0

    def put(text: str) -> None:
        nonlocal at
        parts.append(text)
        at += len(text)

    for b, block in enumerate(blocks):
        put("\n\n" if b else "")
        put("# " if block.title else "")
        for n, line in enumerate(block.lines):
            put("\n" if n else "")
            put("\\" if _MARKUP.match(line.text) else "")
            for w, word in enumerate(line.words):
                put(" " if w else "")
                placed.append(Placed(word, at))
                put(word.text)
    return Page("".join(parts), tuple(placed))


def with_titles(blocks: Sequence[Block]) -> tuple[Block, ...]:
    """Marks what is certainly a heading: one short, well-read line in letters far taller than the page's."""
    lines = [line for block in blocks for line in block.lines]
    if len(lines) < 5:
        return tuple(blocks)
    usual = median(line.height for line in lines)
    return tuple(msgspec.structs.replace(b, title=True) if _is_title(b, usual) else b for b in blocks)


def _is_title(block: Block, usual: float) -> bool:
    if len(block.lines) != 1:
        return False
    line = block.lines[0]
    letters = sum(c.isalpha() for c in line.text)
    sure = min(w.confidence for w in line.words) >= TITLE_CONFIDENCE
    return (
        line.height >= TITLE_HEIGHT * usual
        and letters >= 3
        and letters >= 0.6 * len(line.text.replace(" ", ""))
        and len(line.text) <= TITLE_CHARACTERS_MAX
        and sure
    )


def in_reading_order(lines: Sequence[Line]) -> tuple[Block, ...]:
    """Loose lines (in any order) as paragraphs in reading order."""
    if not lines:
        return ()
    unit = median(_top_bottom(line)[1] - _top_bottom(line)[0] for line in lines)
    return tuple(_cut(list(lines), max(unit, 1.0)))


def _cut(lines: list[Line], unit: float) -> list[Block]:
    columns = _split(lines, _left_right, COLUMN_GAP_LINES * unit)
    if len(columns) > 1 and all(len(_rows(c)) >= COLUMN_LINES_MIN for c in columns):
        return [block for column in columns for block in _cut(column, unit)]
    bands = _split(lines, _top_bottom, PARAGRAPH_GAP_LINES * unit)
    if len(bands) > 1:
        # Only at the widest gap: under a headline that spans the page, its columns then show.
        gaps = [_start(after) - _end(before) for before, after in pairwise(bands)]
        widest = gaps.index(max(gaps)) + 1
        above = [line for band in bands[:widest] for line in band]
        below = [line for band in bands[widest:] for line in band]
        return [*_cut(above, unit), *_cut(below, unit)]
    return [Block(tuple(_joined(row) for row in _rows(lines)))]


def _split(lines: list[Line], extent: Callable[[Line], tuple[int, int]], gap: float) -> list[list[Line]]:
    """Groups parted by a gap along one axis that no line crosses, in order along that axis."""
    groups: list[list[Line]] = []
    reach = 0
    for line in sorted(lines, key=extent):
        low, high = extent(line)
        if groups and low - reach < gap:
            groups[-1].append(line)
        else:
            groups.append([line])
        reach = max(reach, high)
    return groups


def _start(band: list[Line]) -> int:
    return min(_top_bottom(line)[0] for line in band)


def _end(band: list[Line]) -> int:
    return max(_top_bottom(line)[1] for line in band)


def _rows(lines: Sequence[Line]) -> list[list[Line]]:
    """Pieces that stand on the same row, top to bottom, each row left to right."""
    rows: list[list[Line]] = []
    for line in sorted(lines, key=lambda one: sum(_top_bottom(one))):
        top, bottom = _top_bottom(line)
        if rows:
            above_top, above_bottom = _top_bottom(rows[-1][0])
            overlap = min(bottom, above_bottom) - max(top, above_top)
            if overlap > 0.5 * min(bottom - top, above_bottom - above_top):
                rows[-1].append(line)
                continue
        rows.append([line])
    return [sorted(row, key=_left_right) for row in rows]


def _joined(row: list[Line]) -> Line:
    return Line(tuple(w for line in row for w in line.words))


def _left_right(line: Line) -> tuple[int, int]:
    box = enclosing(w.box for w in line.words)
    return box[0], box[2]


def _top_bottom(line: Line) -> tuple[int, int]:
    box = enclosing(w.box for w in line.words)
    return box[1], box[3]
