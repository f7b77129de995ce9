"""What was read on one page, as values: words in lines in blocks, each with its box and its confidence.

Boxes are integers in pixels of the page image as it was read (after rotation), origin top left:
`(left, top, right, bottom)`. Confidences run from 0 to 100, as Tesseract counts them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal

import msgspec

Box = tuple[int, int, int, int]
WORTHLESS = 50.0  # a word below this confidence counts against a reading
Engine = Literal["born-digital", "tesseract", "tesseract+prep", "rapidocr"]


class Word(msgspec.Struct, frozen=True):
    text: str
    confidence: float
    box: Box


class Line(msgspec.Struct, frozen=True):
    words: tuple[Word, ...]

    @property
    def text(self) -> str:
        return " ".join(w.text for w in self.words)

    @property
    def height(self) -> float:
        """The median word height: unlike the line's own box, it does not grow with skew."""
        heights = sorted(w.box[3] - w.box[1] for w in self.words)
        return float(heights[len(heights) // 2])


class Block(msgspec.Struct, frozen=True):
    """One paragraph, in reading order among its siblings."""

    lines: tuple[Line, ...]
    title: bool = False

    @property
    def text(self) -> str:
        return "\n".join(line.text for line in self.lines)

    @property
    def words(self) -> Iterator[Word]:
        return (w for line in self.lines for w in line.words)

    @property
    def box(self) -> Box:
        return enclosing(w.box for w in self.words)


class Reading(msgspec.Struct, frozen=True):
    """One attempt at a page by one engine."""

    engine: Engine
    blocks: tuple[Block, ...]

    @property
    def words(self) -> Iterator[Word]:
        return (w for block in self.blocks for w in block.words)

    @property
    def characters(self) -> int:
        return sum(len(w.text) for w in self.words)

    @property
    def confidence(self) -> float:
        """Mean over words; 0 where nothing was read."""
        scores = [w.confidence for w in self.words]
        return sum(scores) / len(scores) if scores else 0.0

    @property
    def surely_read(self) -> float:
        """Characters weighted by how far their words are from worthless: orders attempts at one page."""
        return sum(len(w.text) * (w.confidence - WORTHLESS) for w in self.words)


def scaled(blocks: tuple[Block, ...], factor: float) -> tuple[Block, ...]:
    """The same text with its boxes in another resolution."""

    def box(b: Box) -> Box:
        return round(b[0] * factor), round(b[1] * factor), round(b[2] * factor), round(b[3] * factor)

    return tuple(
        Block(
            tuple(
                Line(tuple(Word(w.text, w.confidence, box(w.box)) for w in line.words))
                for line in block.lines
            )
        )
        for block in blocks
    )


def enclosing(boxes: Iterable[Box]) -> Box:
    """The smallest box around all of them. Raises ValueError on none."""
    lefts, tops, rights, bottoms = zip(*boxes, strict=True)
    return min(lefts), min(tops), max(rights), max(bottoms)
