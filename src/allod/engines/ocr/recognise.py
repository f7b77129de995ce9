"""One page through the cascade: the text it was born with, or what the engines make of its picture."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Literal

import msgspec
from PIL import Image

from allod.engines.ocr import rapid, tesseract
from allod.engines.ocr.cascade import best, next_step
from allod.engines.ocr.layout import Placed, render, with_titles
from allod.engines.ocr.pages import Digital, Kind, load
from allod.engines.ocr.prepare import prepare
from allod.engines.ocr.text import Block, Engine, Reading
from allod.errors import Unprocessable

ROTATE_SURE = 1.0  # OSD's own scale; upright pages that it would turn by mistake score below
SCRIPT_SURE = 2.0  # OSD has called clean English pages Arabic at 1.2
_TURN: dict[int, Image.Transpose] = {  # OSD counts clockwise, Pillow counter-clockwise
    90: Image.Transpose.ROTATE_270,
    180: Image.Transpose.ROTATE_180,
    270: Image.Transpose.ROTATE_90,
}


class Settings(msgspec.Struct, frozen=True):
    languages: tuple[str, ...]
    rapidocr: bool


class PageText(msgspec.Struct, frozen=True):
    """One page, read. `rotation` is clockwise degrees that were applied before reading."""

    index: int
    markdown: str
    words: tuple[Placed, ...]
    blocks: tuple[Block, ...]
    engine: Engine
    confidence: float
    rotation: Literal[0, 90, 180, 270]
    script: str
    width: int
    height: int
    dpi: int
    milliseconds: int


def recognise(path: Path, kind: Kind, index: int, settings: Settings) -> PageText:
    """Reads page `index`. Raises AllodError where the page cannot be read at all."""
    started = time.monotonic()
    page = load(path, kind, index)
    if isinstance(page, Digital):
        reading = Reading("born-digital", page.blocks)
        seen = tesseract.Orientation()
        size = (page.width, page.height)
    else:
        seen = tesseract.orientation(page.image, dpi=page.dpi)
        upright = _upright(page.image, seen)
        size = upright.size
        reading = _by_cascade(upright, page.dpi, _script(seen), settings)
    blocks = with_titles(reading.blocks)
    page_text = render(blocks)
    return PageText(
        index=index,
        markdown=page_text.markdown,
        words=page_text.words,
        blocks=blocks,
        engine=reading.engine,
        confidence=reading.confidence if page_text.words else 100.0 * (reading.engine == "born-digital"),
        rotation=_rotation(seen),
        script=_script(seen),
        width=size[0],
        height=size[1],
        dpi=page.dpi,
        milliseconds=round(1000 * (time.monotonic() - started)),
    )


def _by_cascade(image: Image.Image, dpi: int, script: str, settings: Settings) -> Reading:
    """Unknown script: the first configured language's packs read first, all of them where that is unsure."""
    everything = settings.languages
    if script and not (everything := tesseract.for_script(settings.languages, script)):
        raise Unprocessable(
            "ocr.script-unsupported",
            f"the page is written in {script}, and no language of that script is configured",
            hint="install its pack (apt-get install tesseract-ocr-...) and name it in --languages",
        )
    first = tesseract.for_script(everything, script or tesseract.script_of(everything[0]))
    tried = [Reading("tesseract", tesseract.read(image, languages=first, dpi=dpi))]
    steps: dict[str, Callable[[], Reading]] = {
        "prepare": lambda: _prepared(image, dpi, everything, _letter_height(tried[0])),
        "rapidocr": lambda: Reading("rapidocr", rapid.read(image)),
    }
    while (step := next_step(tried, script=script, rapidocr=settings.rapidocr)) != "accept":
        tried.append(steps[step]())
    return best(tried)


def _prepared(
    image: Image.Image, dpi: int, languages: tuple[str, ...], letter_height: float | None
) -> Reading:
    ready = prepare(image, letter_height=letter_height)
    factor = ready.width / image.width
    blocks = tesseract.read(ready, languages=languages, dpi=round(dpi * factor))
    return Reading("tesseract+prep", _scaled(blocks, 1 / factor))


def _scaled(blocks: tuple[Block, ...], factor: float) -> tuple[Block, ...]:
    """Boxes back in the pixels of the page. (A page turned by a few degrees keeps the turned boxes.)"""
    return tuple(
        Block(
            tuple(
                msgspec.structs.replace(
                    line,
                    words=tuple(
                        msgspec.structs.replace(
                            w,
                            box=(
                                round(w.box[0] * factor),
                                round(w.box[1] * factor),
                                round(w.box[2] * factor),
                                round(w.box[3] * factor),
                            ),
                        )
                        for w in line.words
                    ),
                )
                for line in block.lines
            )
        )
        for block in blocks
    )


def _letter_height(reading: Reading) -> float | None:
    heights = [w.box[3] - w.box[1] for w in reading.words if len(w.text) > 1]
    return float(median(heights)) if len(heights) >= 8 else None


def _rotation(seen: tesseract.Orientation) -> Literal[0, 90, 180, 270]:
    return seen.rotate if seen.rotate_confidence >= ROTATE_SURE else 0


def _script(seen: tesseract.Orientation) -> str:
    return seen.script if seen.script_confidence >= SCRIPT_SURE else ""


def _upright(image: Image.Image, seen: tesseract.Orientation) -> Image.Image:
    turn = _rotation(seen)
    return image.transpose(_TURN[turn]) if turn else image
