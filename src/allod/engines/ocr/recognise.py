"""One page through the cascade: the text it was born with, or what the engines make of its picture."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Literal

import msgspec
from PIL import Image

from allod.engines.ocr import rapid, tesseract
from allod.engines.ocr.cascade import DOUBTFUL, SURE, best, next_step
from allod.engines.ocr.layout import Placed, render, with_titles
from allod.engines.ocr.pages import Digital, Kind, Sheet, load
from allod.engines.ocr.prepare import evenly_lit, flattened, levelled, prepared
from allod.engines.ocr.text import Block, Engine, Reading, scaled
from allod.errors import Unprocessable

Rotation = Literal[0, 90, 180, 270]

ROTATE_SURE = 1.0  # OSD's own scale; upright pages that it would turn by mistake mostly score below
SCRIPT_SURE = 2.0  # OSD has called clean English pages Arabic at 1.2
_TURN: dict[Rotation, Image.Transpose] = {  # OSD counts clockwise, Pillow counter-clockwise
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
    rotation: Rotation
    script: str
    width: int
    height: int
    dpi: int
    milliseconds: int


class _Seen(msgspec.Struct, frozen=True):
    """What came of a page's picture: `width` and `height` are those of the page upright."""

    reading: Reading
    width: int
    height: int
    rotation: Rotation = 0
    script: str = ""


class _Lead(msgspec.Struct, frozen=True):
    """What OSD said, where it was sure enough to be followed, and the languages that go with it."""

    script: str
    rotations: tuple[Rotation, ...]  # to be tried in this order
    languages: tuple[str, ...]  # all that may be on the page
    likely: tuple[str, ...]  # those to begin with
    foreign: bool  # the script is none that is configured
    suspected: str  # a script named at whatever confidence that no configured language is written in, or ""


def recognise(path: Path, kind: Kind, index: int, settings: Settings) -> PageText:
    """Reads page `index`. Raises AllodError where the page cannot be read at all."""
    started = time.monotonic()
    page = load(path, kind, index)
    if isinstance(page, Digital):
        seen = _Seen(Reading("born-digital", page.blocks), page.width, page.height)
    else:
        seen = _recognised(page, settings)
    blocks = with_titles(seen.reading.blocks)
    text = render(blocks)
    digital = seen.reading.engine == "born-digital"
    return PageText(
        index=index,
        markdown=text.markdown,
        words=text.words,
        blocks=blocks,
        engine=seen.reading.engine,
        confidence=100.0 if digital else seen.reading.confidence,
        rotation=seen.rotation,
        script=seen.script,
        width=seen.width,
        height=seen.height,
        dpi=page.dpi,
        milliseconds=round(1000 * (time.monotonic() - started)),
    )


def _recognised(sheet: Sheet, settings: Settings) -> _Seen:
    """The picture through the cascade. Raises Unprocessable on a script that no configured pack reads.

    OSD is sometimes sure and wrong (a coarse fax of upright Latin is upside-down Thai to it), so what it says
    is a lead, and what can be read decides.
    """
    lit = evenly_lit(sheet.image)
    image = sheet.image if lit else flattened(sheet.image)
    lead = _lead(tesseract.orientation(image, dpi=sheet.dpi), settings.languages)
    rotation, upright, first = _first_reading(image, sheet.dpi, lead, lit=lit)
    if lead.suspected and _has_zone(first):
        lead = msgspec.structs.replace(lead, script="", foreign=False, suspected="")
    tried = [first]
    rapidocr = settings.rapidocr and not lead.foreign
    while (step := next_step(tried, script=lead.script, rapidocr=rapidocr)) != "accept":
        if step == "prepare":
            tried.append(_after_preparing(upright, sheet.dpi, lead.languages))
        else:
            tried.append(Reading("rapidocr", rapid.read(levelled(upright))))
    reading = best(tried)
    if lead.suspected and reading.confidence < (SURE if lead.foreign else DOUBTFUL):
        raise Unprocessable(
            "ocr.script-unsupported",
            f"the page seems to be written in {lead.suspected}, and no language of that script is configured",
            hint="install its pack (apt-get install tesseract-ocr-...) and name it in --languages",
        )
    return _Seen(reading, *upright.size, rotation=rotation, script="" if lead.foreign else lead.script)


def _lead(seen: tesseract.Orientation, languages: tuple[str, ...]) -> _Lead:
    script = seen.script if seen.script_confidence >= SCRIPT_SURE else ""
    rotation: Rotation = seen.rotate if seen.rotate_confidence >= ROTATE_SURE else 0
    written = tesseract.for_script(languages, script)
    foreign = not written
    # A script that cannot be here makes the rotation doubtful too: upright is then tried first.
    rotations: tuple[Rotation, ...] = (0, rotation) if foreign else (rotation, 0)
    everything = written or languages
    named = tesseract.for_script(everything, seen.script) if seen.script else ()
    likely = named or tesseract.for_script(everything, tesseract.script_of(everything[0]))
    everything = tuple(dict.fromkeys((*likely, *everything)))  # Tesseract prefers the first
    suspected = "" if tesseract.for_script(languages, seen.script) else seen.script
    return _Lead(script, tuple(dict.fromkeys(rotations)), everything, likely, foreign, suspected)


def _has_zone(reading: Reading) -> bool:
    """Whether rows of `<` were read, as on identity documents: OSD takes them for Bengali or Greek."""
    return any("<<<" in word.text for word in reading.words)


def _first_reading(
    image: Image.Image, dpi: int, lead: _Lead, *, lit: bool
) -> tuple[Rotation, Image.Image, Reading]:
    """The first orientation that reads well, else the one that reads best."""
    attempts = []
    for rotation in lead.rotations:
        upright = image.transpose(_TURN[rotation]) if rotation else image
        if lit:
            reading = Reading("tesseract", tesseract.read(upright, languages=lead.likely, dpi=dpi))
        else:  # a photograph: small and askew as well, as a rule
            reading = _after_preparing(upright, dpi, lead.languages)
        attempts.append((rotation, upright, reading))
        if reading.confidence >= DOUBTFUL:
            break
    return max(attempts, key=lambda attempt: attempt[2].surely_read)


def _after_preparing(image: Image.Image, dpi: int, languages: tuple[str, ...]) -> Reading:
    """Boxes are in the pixels of `image`; on a page that was levelled they are where the level text is."""
    ready = prepared(image)
    factor = ready.width / image.width
    blocks = tesseract.read(ready, languages=languages, dpi=round(dpi * factor))
    return Reading("tesseract+prep", scaled(blocks, 1 / factor))
