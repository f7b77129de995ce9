"""A scanned page to try the node with when nobody has one at hand: invented, and marked SPECIMEN.

Every name, number and address is made up. The page is drawn, turned a little, speckled and stored as a
picture inside a PDF, as an office scanner would; the same seed gives the same bytes. The text it shows is
returned, so that a check can compare what was read with what is there.
"""

from __future__ import annotations

import time
from pathlib import Path

import msgspec
import numpy as np
from PIL import Image, ImageDraw, ImageFont

DPI = 200
_A4 = (1654, 2339)  # 210 x 297 mm at 200 dpi
_MARGIN = 170
_SKEW_DEGREES = 0.7
_NOISE = 9.0  # standard deviation of the paper's grain, in grey levels
_FONTS = ("LiberationSans-{}.ttf", "DejaVuSans{}.ttf")  # Debian: fonts-liberation, fonts-dejavu-core
_DEJAVU_STYLE = {"Regular": "", "Bold": "-Bold"}


class _Text(msgspec.Struct, frozen=True):
    text: str
    size: int = 30
    bold: bool = False
    space_above: int = 0


_PAGE = (
    _Text("SPECIMEN - SPÉCIMEN - MUSTER", 40, bold=True),
    _Text("Atelier Aubépine SARL", 34, bold=True, space_above=70),
    _Text("12, rue des Noisetiers"),
    _Text("99999 Clairval-sur-Orle"),
    _Text("Hofgut Weißdorn GmbH", bold=True, space_above=60),
    _Text("Mühlenstraße 7"),
    _Text("99998 Großkirchen am Söll"),
    _Text("Facture / Rechnung / Invoice 2026-0417", 44, bold=True, space_above=80),
    _Text("Date: 3 mars 2026"),
    _Text("Madame, Monsieur,", space_above=60),
    _Text("veuillez trouver ci-joint la facture de notre livraison du 24 février."),
    _Text("Le règlement est attendu à trente jours, sans escompte."),
    _Text("Sehr geehrte Damen und Herren,", space_above=50),
    _Text("anbei erhalten Sie die Rechnung für unsere Lieferung vom 24. Februar."),
    _Text("Bitte überweisen Sie den Betrag innerhalb von dreißig Tagen."),
    _Text("Dear customer,", space_above=50),
    _Text("please find attached the invoice for our delivery of 24 February."),
    _Text("Payment is due within thirty days."),
    _Text("40 chaises pliantes / Klappstühle / folding chairs: 1 960,00 EUR", space_above=70),
    _Text("6 tables rondes / runde Tische / round tables: 1 134,00 EUR"),
    _Text("Total: 3 094,00 EUR", 36, bold=True, space_above=20),
    _Text("Référence à rappeler: AUB-0417-WD", space_above=60),
    _Text("Document inventé, sans valeur. Erfundenes Dokument. Invented document.", 26, space_above=90),
)


def write_specimen(path: Path, *, seed: int = 2026) -> str:
    """Writes the one-page image-only PDF (about 1 MB) and returns its text, a line per printed line."""
    page = _scanned(_drawn(), seed)
    epoch = time.gmtime(0)  # the same bytes every time
    page.save(
        path, "PDF", resolution=float(DPI), quality=80, title="SPECIMEN", creationDate=epoch, modDate=epoch
    )
    return "\n".join(line.text for line in _PAGE) + "\n"


def _drawn() -> Image.Image:
    page = Image.new("L", _A4, 255)
    _watermark(page)
    pen = ImageDraw.Draw(page)
    top = _MARGIN
    for line in _PAGE:
        top += line.space_above
        pen.text((_MARGIN, top), line.text, fill=20, font=_font(line.size, bold=line.bold))
        top += round(line.size * 1.45)
    return page


def _watermark(page: Image.Image) -> None:
    """SPECIMEN across the whole page, too pale to disturb reading, too large to be cropped away."""
    label = Image.new("L", (1900, 420), 255)
    ImageDraw.Draw(label).text((20, 20), "SPECIMEN", fill=238, font=_font(330, bold=True))
    turned = label.rotate(50, expand=True, fillcolor=255)
    page.paste(turned, ((page.width - turned.width) // 2, (page.height - turned.height) // 2))


def _scanned(page: Image.Image, seed: int) -> Image.Image:
    turned = page.rotate(_SKEW_DEGREES, resample=Image.Resampling.BICUBIC, fillcolor=255)
    grain = np.random.default_rng(seed).normal(0.0, _NOISE, (page.height, page.width))
    paper = np.asarray(turned, dtype=np.float64) * 0.96 + grain
    return Image.fromarray(np.clip(paper, 0, 255).astype(np.uint8))


def _font(size: int, *, bold: bool) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    style = "Bold" if bold else "Regular"
    for name in _FONTS:
        dejavu = name.startswith("DejaVu")
        try:
            return ImageFont.truetype(name.format(_DEJAVU_STYLE[style] if dejavu else style), size)
        except OSError:
            continue
    return ImageFont.load_default(size)  # Pillow brings one along
