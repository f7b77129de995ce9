"""Single pages that have misled recognisers, through the real engines in this process."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import pytest
from ocr_replica import character_error_rate
from pages import pdf, stream
from PIL import Image, ImageDraw, ImageFont

from allod.engines.ocr.recognise import PageText, Settings, recognise
from allod.errors import Unprocessable

LINES = (
    "The ferry leaves the northern pier at seven and again at noon,",
    "and on market days a third boat sails as soon as it is full.",
    "Tickets for the crossing are sold in the old customs house.",
    "Children under six travel free when an adult is with them.",
    "Bicycles are carried on deck if the weather allows it, and",
    "dogs are welcome everywhere except in the dining saloon.",
)
TRUTH = "\n".join(LINES)
GREEK = "Το πλοίο φεύγει από τη βόρεια προβλήτα στις επτά και πάλι το μεσημέρι.\nΤα εισιτήρια πωλούνται εκεί."
ENGLISH = Settings(("eng",), rapidocr=False)


def drawn(text: str = TRUTH) -> Image.Image:
    page = Image.new("L", (1400, 1100), 255)
    font = ImageFont.truetype("LiberationSerif-Regular.ttf", 36)
    for n, line in enumerate(text.split("\n")):
        ImageDraw.Draw(page).text((120, 120 + 60 * n), line, fill=15, font=font)
    return page


def read(page: Image.Image, folder: Path, settings: Settings = ENGLISH) -> PageText:
    page.save(folder / "page.png", dpi=(200, 200))
    return recognise(folder / "page.png", "png", 0, settings)


def test_text_in_the_shadow_of_a_photograph_is_not_lost(tmp_path: Path) -> None:
    turned = drawn().rotate(3, Image.Resampling.BICUBIC, fillcolor=255).resize((910, 715))
    light = np.linspace(1.0, 0.4, 910)[None, :]
    photo = Image.fromarray((np.asarray(turned, dtype=float) * light).astype(np.uint8))
    seen = read(photo, tmp_path)
    assert character_error_rate(seen.markdown, TRUTH) <= 0.02
    assert seen.engine == "tesseract+prep"


def test_a_coarse_fax_is_not_turned_upside_down(tmp_path: Path) -> None:
    coarse = drawn().resize((1400, 550), Image.Resampling.BOX).resize((1400, 1100), Image.Resampling.BILINEAR)
    noise = np.random.default_rng(3).normal(0, 25, (1100, 1400))
    fax = Image.fromarray((255 * (np.asarray(coarse) + noise > 128)).astype(np.uint8))
    seen = read(fax, tmp_path)
    assert seen.rotation == 0
    assert character_error_rate(seen.markdown, TRUTH) <= 0.05


def test_a_script_without_its_language_is_refused_not_guessed(tmp_path: Path) -> None:
    with pytest.raises(Unprocessable) as refused:
        read(drawn(GREEK), tmp_path)
    assert refused.value.code == "ocr.script-unsupported"
    seen = read(drawn(GREEK), tmp_path, Settings(("eng", "ell"), rapidocr=False))
    assert character_error_rate(seen.markdown, GREEK) <= 0.05


def test_the_hidden_text_under_a_scan_is_not_believed(tmp_path: Path) -> None:
    page = drawn()
    picture = stream(
        zlib.compress(page.tobytes()),
        b"/Type /XObject /Subtype /Image /Width 1400 /Height 1100 /BitsPerComponent 8 "
        b"/ColorSpace /DeviceGray /Filter /FlateDecode",
    )
    lie = b"BT /F1 12 Tf 3 Tr 72 300 Td (Pay the whole amount to a quite different account today) Tj ET "
    document = pdf(
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 504 396] /Contents 4 0 R "
        b"/Resources << /XObject << /I 5 0 R >> /Font << /F1 6 0 R >> >> >>",
        stream(lie + b"q 504 0 0 396 0 0 cm /I Do Q"),
        picture,
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    )
    (tmp_path / "scan.pdf").write_bytes(document)
    seen = recognise(tmp_path / "scan.pdf", "pdf", 0, ENGLISH)
    assert seen.engine != "born-digital"
    assert "different account" not in seen.markdown
    assert character_error_rate(seen.markdown, TRUTH) <= 0.02
    assert seen.dpi == 200  # the scan's own resolution


def test_an_empty_sheet_is_an_empty_page(tmp_path: Path) -> None:
    seen = read(Image.new("L", (800, 1000), 250), tmp_path)
    assert (seen.markdown, seen.blocks, seen.confidence) == ("", (), 0.0)


def test_rapidocr_takes_over_a_page_that_tesseract_cannot_read(tmp_path: Path) -> None:
    small = drawn().resize((308, 242), Image.Resampling.BOX)
    without = read(small, tmp_path)
    seen = read(small, tmp_path, Settings(("eng",), rapidocr=True))
    assert seen.engine == "rapidocr"
    assert without.engine != "rapidocr"  # the one setting that turns it off
    assert character_error_rate(seen.markdown, TRUTH) < character_error_rate(without.markdown, TRUTH)
