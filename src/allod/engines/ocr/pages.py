"""From a document's bytes on disk to one page: its text where it was born digital, else its picture.

Runs in a page worker only: PDFium and the image decoders are where hostile files do their harm. Sizes are
checked from headers, before anything is decoded.
"""

from __future__ import annotations

import ctypes
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import msgspec
import pypdfium2 as pdfium
import pypdfium2.raw as pdfium_c
from PIL import Image, ImageOps, UnidentifiedImageError

from allod.engines.ocr.text import Block, Box, Line, Word
from allod.errors import TooLarge, Usage
from allod.limits import EMBEDDED_IMAGE_PIXELS_MAX, PAGE_PIXELS_MAX, RENDER_PIXELS_MAX

Kind = Literal["pdf", "png", "jpeg", "tiff", "webp", "bmp"]

RENDER_DPI = 300  # of pages whose drawing has no resolution of its own; Tesseract's models like it
RENDER_DPI_MIN = 150  # a page of small pictures is drawn at least this fine
ASSUMED_DPI = 200  # of an image file that does not say
IMAGE_SHARE_MAX = 0.35  # of a page: with more of it pictures, its text layer is not the whole page
TEXT_CHARACTERS_MIN = 32  # less text beside drawings is a page number, not the page
GARBAGE_SHARE_MAX = 0.05  # of characters that mean nothing: the fonts have no usable Unicode map
_POINTS_PER_INCH = 72
_SCAN_DEPTH = 3  # forms inside forms that are looked into for pictures
_OBJECTS_LOOKED_AT = 2_000  # a page may hold millions


class Sheet(msgspec.Struct, frozen=True):
    """A page as pixels."""

    image: Image.Image
    dpi: int


class Digital(msgspec.Struct, frozen=True):
    """A page as the text its producer wrote. Boxes are in pixels at `dpi`."""

    blocks: tuple[Block, ...]
    width: int
    height: int
    dpi: int


def count(path: Path, kind: Kind) -> int:
    """How many pages. Raises Usage where the file cannot be opened as what it says it is."""
    if kind == "pdf":
        with _opened_pdf(path) as document:
            return len(document)
    with _opened_image(path, kind) as image:
        return int(getattr(image, "n_frames", 1)) if kind == "tiff" else 1


def load(path: Path, kind: Kind, index: int) -> Sheet | Digital:
    """Page `index`, counted from 0. Raises TooLarge or Usage naming what is wrong with it."""
    if kind == "pdf":
        with _opened_pdf(path) as document:
            return _pdf_page(document, index)
    with _opened_image(path, kind) as image:
        return _frame(image, index)


# --- images -------------------------------------------------------------------------------------------


@contextmanager
def _opened_image(path: Path, kind: Kind) -> Iterator[Image.Image]:
    Image.MAX_IMAGE_PIXELS = None  # our own bound is checked first, with our own error
    try:
        image = Image.open(path, formats=[kind.upper()])
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as e:
        raise Usage("document.damaged", f"the {kind.upper()} image cannot be opened", param="document") from e
    with image:
        yield image


def _frame(image: Image.Image, index: int) -> Sheet:
    try:
        if index:
            image.seek(index)
        _check_pixels(image.width * image.height)
        image.load()
        upright = ImageOps.exif_transpose(image)
        dpi = _declared_dpi(image)
        return Sheet(_on_white(upright), dpi)
    except (OSError, SyntaxError, EOFError, ValueError) as e:
        raise Usage("document.damaged", "the image is cut short or damaged", param="document") from e


def _declared_dpi(image: Image.Image) -> int:
    declared = image.info.get("dpi", (0, 0))[0]
    return round(float(declared)) if 50 <= declared <= 1200 else ASSUMED_DPI


def _on_white(image: Image.Image) -> Image.Image:
    """Grey or RGB; what is transparent becomes paper."""
    if image.mode in {"1", "L"}:
        return image.convert("L")
    if image.mode.startswith("I;16") or image.mode in {"I", "F"}:
        return image.convert("I").point(lambda v: v / 256).convert("L")
    if image.has_transparency_data:
        paper = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(paper, image.convert("RGBA")).convert("RGB")
    return image.convert("RGB")


def _check_pixels(pixels: int, at_most: int = PAGE_PIXELS_MAX) -> None:
    if pixels > at_most:
        raise TooLarge(
            "document.page-too-large",
            f"the page has {pixels / 1e6:.0f} megapixels; at most {at_most / 1e6:.0f} are read",
            hint="scan at 300 dpi, or split the sheet",
            param="document",
        )


# --- PDF ----------------------------------------------------------------------------------------------


@contextmanager
def _opened_pdf(path: Path) -> Iterator[pdfium.PdfDocument]:
    try:
        document = pdfium.PdfDocument(path)
    except pdfium.PdfiumError as e:
        if getattr(e, "err_code", None) == pdfium_c.FPDF_ERR_PASSWORD:
            raise Usage(
                "document.encrypted",
                "the PDF is encrypted and needs a password",
                hint="send a copy without a password",
                param="document",
            ) from e
        raise Usage("document.damaged", "the PDF is damaged or cut short", param="document") from e
    with document:
        yield document


def _pdf_page(document: pdfium.PdfDocument, index: int) -> Sheet | Digital:
    try:
        page = document[index]
    except (pdfium.PdfiumError, IndexError) as e:
        raise Usage("document.damaged", f"page {index} of the PDF cannot be opened", param="document") from e
    width, height = page.get_size()
    if not (width > 0 and height > 0):
        raise Usage("document.damaged", f"page {index} of the PDF has no size", param="document")
    pictures = _pictures(page, width * height)
    if pictures.share <= IMAGE_SHARE_MAX:
        digital = _digital(page, drawn=pictures.others + pictures.count)
        if digital is not None:
            return digital
    dpi = _render_dpi(width, height, pictures)
    bitmap = page.render(scale=dpi / _POINTS_PER_INCH, grayscale=False, may_draw_forms=False)
    return Sheet(bitmap.to_pil().convert("RGB"), dpi)


class _Pictures(msgspec.Struct, frozen=True):
    count: int
    share: float  # of the page's area; overlaps count twice
    dpi: float  # of the largest one
    others: int  # drawings that are neither text nor pictures


def _pictures(page: pdfium.PdfPage, area: float) -> _Pictures:
    """What the page shows beside text. Raises TooLarge on a picture that is a bomb."""
    found, covered, largest, dpi, others = 0, 0.0, 0.0, 0.0, 0
    for n, thing in enumerate(page.get_objects(max_depth=_SCAN_DEPTH)):
        if n >= _OBJECTS_LOOKED_AT:
            break
        if thing.type != pdfium_c.FPDF_PAGEOBJ_IMAGE:
            others += thing.type in {pdfium_c.FPDF_PAGEOBJ_PATH, pdfium_c.FPDF_PAGEOBJ_SHADING}
            continue
        pixels_wide, pixels_high = _pixel_size(thing)
        _check_pixels(pixels_wide * pixels_high, EMBEDDED_IMAGE_PIXELS_MAX)
        left, bottom, right, top = thing.get_bounds()
        size = max(0.0, right - left) * max(0.0, top - bottom)
        found, covered = found + 1, covered + size
        if size > largest:
            largest = size
            dpi = _POINTS_PER_INCH * (pixels_wide * pixels_high / size) ** 0.5
    return _Pictures(found, covered / area, dpi, others)


def _pixel_size(picture: pdfium.PdfObject) -> tuple[int, int]:
    width, height = ctypes.c_uint(), ctypes.c_uint()
    ok = pdfium_c.FPDFImageObj_GetImagePixelSize(picture, width, height)
    return (width.value, height.value) if ok else (0, 0)


def _render_dpi(width: float, height: float, pictures: _Pictures) -> int:
    """The scan's own resolution between the bounds, lowered where the sheet would be too many pixels."""
    scanned = pictures.share > IMAGE_SHARE_MAX and pictures.dpi > 0
    wanted = min(max(pictures.dpi, RENDER_DPI_MIN), RENDER_DPI) if scanned else float(RENDER_DPI)
    room = _POINTS_PER_INCH * (RENDER_PIXELS_MAX / (width * height)) ** 0.5
    dpi = int(min(wanted, room))
    if dpi < 1:
        raise TooLarge(
            "document.page-too-large",
            f"the page is {width / _POINTS_PER_INCH:.0f} by {height / _POINTS_PER_INCH:.0f} inches",
            param="document",
        )
    return dpi


def _digital(page: pdfium.PdfPage, *, drawn: int) -> Digital | None:
    """The page's own text, or None where it is not plausibly all that the page says."""
    text_page = page.get_textpage()
    text = text_page.get_text_range()
    marks = [c for c in text if not c.isspace()]
    if not marks and not drawn:
        return _digital_page(page, ())
    if len(marks) < TEXT_CHARACTERS_MIN and drawn:
        return None
    if not marks or sum(map(_is_garbage, marks)) > GARBAGE_SHARE_MAX * len(marks):
        return None
    mapped = len(text) == text_page.count_chars()
    return _digital_page(page, _paragraphs(page, text_page, text, mapped=mapped))


def _is_garbage(c: str) -> bool:
    return c == "\N{REPLACEMENT CHARACTER}" or unicodedata.category(c) in {"Cc", "Cn", "Co", "Cs"}


def _digital_page(page: pdfium.PdfPage, blocks: tuple[Block, ...]) -> Digital:
    scale = RENDER_DPI / _POINTS_PER_INCH
    width, height = page.get_size()
    return Digital(blocks, round(width * scale), round(height * scale), RENDER_DPI)


def _paragraphs(
    page: pdfium.PdfPage, text_page: pdfium.PdfTextPage, text: str, *, mapped: bool
) -> tuple[Block, ...]:
    """Lines in the producer's order; a gap wider than a line, or a jump back up, starts a paragraph."""
    blocks: list[list[Line]] = []
    previous: Box | None = None
    at = 0
    for raw in text.split("\n"):
        box = _line_box(page, text_page, at, len(raw)) if mapped and raw.strip() else None
        at += len(raw) + 1
        clean = raw.replace("\r", "").replace("\N{NULL}", "").replace("\ufffe", "-")
        if not clean.strip():
            previous = None
            continue
        line = Line(tuple(_spread(clean.split(), box or (0, 0, 0, 0))))
        if blocks and (not mapped or (box and previous and _continues(previous, box))):
            blocks[-1].append(line)
        else:
            blocks.append([line])
        previous = box
    return tuple(Block(tuple(lines)) for lines in blocks)


def _continues(above: Box, box: Box) -> bool:
    height = max(above[3] - above[1], box[3] - box[1], 1)
    return -0.5 * height <= box[1] - above[3] <= 0.8 * height


def _line_box(page: pdfium.PdfPage, text_page: pdfium.PdfTextPage, start: int, length: int) -> Box | None:
    pieces = text_page.count_rects(start, length)
    if pieces < 1:
        return None
    rects = [text_page.get_rect(i) for i in range(min(pieces, 64))]
    scale = RENDER_DPI / _POINTS_PER_INCH
    _, page_height = page.get_size()
    left = min(r[0] for r in rects)
    bottom = min(r[1] for r in rects)
    right = max(r[2] for r in rects)
    top = max(r[3] for r in rects)
    return (
        round(left * scale),
        round((page_height - top) * scale),
        round(right * scale),
        round((page_height - bottom) * scale),
    )


def _spread(words: list[str], box: Box) -> Iterator[Word]:
    """Words share their line's box by their letters. Nothing was recognised, so nothing is doubtful: 100."""
    left, top, right, bottom = box
    total = sum(map(len, words)) + len(words) - 1
    at = 0
    for word in words:
        x0 = left + (right - left) * at // total
        x1 = left + (right - left) * (at + len(word)) // total
        yield Word(word, 100.0, (x0, top, x1, bottom))
        at += len(word) + 1
