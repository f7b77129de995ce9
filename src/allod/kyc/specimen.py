"""Specimen identity documents for tests and demonstrations: a passport page (TD3) and a card (TD1).

Guarantees: every picture says SPECIMEN across its face, comes from Utopia (the code that Doc 9303 keeps for
samples), and shows a person who was made up from a seed. The same seed draws the same picture.
"""

from __future__ import annotations

import random
from datetime import date
from pathlib import Path
from typing import Literal

import msgspec
from PIL import Image, ImageDraw, ImageFont

from allod.errors import NotReady
from allod.kyc.mrz_layout import FILLER, TD1, TD3
from allod.kyc.mrz_write import transliterated, write
from allod.kyc.states import SPECIMEN_STATE

Form = Literal["TD3", "TD1"]
DPI = 300
_ZONE_FONT = Path("/usr/share/fonts/opentype/ocr-b/OCRB.otf")  # Debian's fonts-ocr-b: free, in main
_PITCH = DPI / 10  # OCR-B size 1: ten characters an inch
_SURNAMES = (
    "Ahlqvist",
    "Brodský",
    "Çelikkaya",
    "Dąbkiewicz",
    "Eßlinger",
    "Ferreirinha",
    "Grönvall",
    "Kučinskas",
)
_GIVEN = {
    "F": ("Åsa", "Mária Zofia", "Élodie", "Ingrid", "Yvonne Lucía", "Svetla"),
    "M": ("Jürgen", "Łukasz", "Óscar", "Pál Attila", "Zoltan", "Iulian"),
}
_NUMBER = "ABCDEFGHJKLMNPRSTUVWXYZ0123456789"
_INK, _PAPER, _PALE, _RED = (25, 25, 40), (236, 240, 233), (205, 218, 210), (190, 30, 40)


class Holder(msgspec.Struct, frozen=True):
    """A person who does not exist."""

    surname: str
    given_names: str
    sex: Literal["F", "M"]
    born: date
    number: str
    issued: date
    expires: date


def invented(seed: int) -> Holder:
    """The person of that seed."""
    rng = random.Random(seed)  # noqa: S311 - nothing is kept secret with it
    sex: Literal["F", "M"] = rng.choice(("F", "M"))
    issued = date(rng.randint(2018, 2025), rng.randint(1, 12), rng.randint(1, 28))
    return Holder(
        surname=rng.choice(_SURNAMES),
        given_names=rng.choice(_GIVEN[sex]),
        sex=sex,
        born=date(rng.randint(1940, 2004), rng.randint(1, 12), rng.randint(1, 28)),
        number="".join(rng.choices(_NUMBER, k=9)),
        issued=issued,
        expires=issued.replace(year=issued.year + 10),
    )


def zone(holder: Holder, form: Form) -> tuple[str, ...]:
    """The machine-readable zone of that person's document."""
    parts = {
        "document_type": "P" if form == "TD3" else "I",
        "issuer": SPECIMEN_STATE,
        "nationality": SPECIMEN_STATE,
        "name": transliterated(holder.surname) + FILLER * 2 + transliterated(holder.given_names),
        "number": holder.number,
        "birth_date": f"{holder.born:%y%m%d}",
        "sex": holder.sex,
        "expiry_date": f"{holder.expires:%y%m%d}",
    }
    return write(TD3 if form == "TD3" else TD1, parts)


def picture(holder: Holder, form: Form) -> Image.Image:
    """The document at 300 dpi: the data page (125 x 88 mm), or both sides of the card (each 85.6 x 54 mm)."""
    lines = zone(holder, form)
    if form == "TD3":
        page = _sheet(1476, 1039)
        _face(page, holder, "PASSPORT · PASSEPORT", (70, 60))
        _zone(page, lines, (78, 838))
        return _marked(page)
    front, back = _sheet(1011, 638), _sheet(1011, 638)
    _face(front, holder, "IDENTITY CARD", (40, 30))
    ImageDraw.Draw(back).text((60, 60), "UTOPIA · SPECIMEN", font=_font(34), fill=_INK)
    _zone(back, lines, (55, 400))
    both = Image.new("RGB", (1011 + 120, 2 * 638 + 180), (250, 250, 250))
    both.paste(_marked(front), (60, 60))
    both.paste(_marked(back), (60, 638 + 120))
    return both


# --- drawing ------------------------------------------------------------------------------------------------


def _font(size: float, *, bold: bool = False) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(f"DejaVuSans{'-Bold' if bold else ''}.ttf", size)


def _sheet(width: int, height: int) -> Image.Image:
    """Paper with a fine ground, as documents have against copying."""
    page = Image.new("RGB", (width, height), _PAPER)
    pen = ImageDraw.Draw(page)
    for x in range(-height, width, 26):
        pen.line((x, 0, x + height, height), fill=_PALE, width=1)
        pen.line((x + height, 0, x, height), fill=_PALE, width=1)
    return page


def _face(page: Image.Image, holder: Holder, title: str, at: tuple[int, int]) -> None:
    """The visual zone: a silhouette, and the fields with their names."""
    pen = ImageDraw.Draw(page)
    x, y = at
    pen.text((x, y), "UTOPIA", font=_font(44, bold=True), fill=_INK)
    pen.text((x + 300, y + 10), f"{title} · SPECIMEN", font=_font(30), fill=_INK)
    top = y + 85
    tall = min(500, page.height - top - 60)
    wide = tall * 7 // 9
    pen.rectangle((x, top, x + wide, top + tall), fill=(215, 220, 225), outline=_INK)
    pen.ellipse(
        (x + wide * 3 // 10, top + tall // 8, x + wide * 7 // 10, top + tall * 11 // 20), fill=(150, 155, 165)
    )
    pen.pieslice(
        (x + wide // 10, top + tall * 3 // 5, x + wide * 9 // 10, top + tall * 7 // 5),
        180,
        360,
        (150, 155, 165),
    )
    rows = (
        ("Surname / Nom", holder.surname.upper()),
        ("Given names / Prénoms", holder.given_names.upper()),
        ("Nationality · Sex", f"UTOPIAN   {holder.sex}"),
        ("Date of birth", f"{holder.born:%d.%m.%Y}"),
        ("Document No.", holder.number),
        ("Date of expiry", f"{holder.expires:%d.%m.%Y}"),
    )
    step = (page.height - top - (230 if page.height > 800 else 30)) // len(rows)
    for n, (name, text) in enumerate(rows):
        pen.text((x + wide + 50, top + n * step), name, font=_font(20), fill=(90, 90, 110))
        pen.text((x + wide + 50, top + n * step + 24), text, font=_font(34), fill=_INK)


def _zone(page: Image.Image, lines: tuple[str, ...], at: tuple[int, int]) -> None:
    """The zone in OCR-B at its pitch, on plain paper. Raises NotReady `kyc.no-font`."""
    if not _ZONE_FONT.is_file():
        raise NotReady(
            "kyc.no-font",
            "the typeface of machine-readable zones is missing",
            hint="apt-get install fonts-ocr-b",
        )
    probe = ImageFont.truetype(str(_ZONE_FONT), 100)
    font = ImageFont.truetype(str(_ZONE_FONT), 100 * _PITCH / probe.getlength("0"))
    pen = ImageDraw.Draw(page)
    x, y = at
    pen.rectangle((0, y - 30, page.width, page.height), fill=(243, 245, 240))
    for n, line in enumerate(lines):
        for i, character in enumerate(line):
            pen.text((x + i * _PITCH, y + n * 75), character, font=font, fill=_INK)


def _marked(page: Image.Image) -> Image.Image:
    """SPECIMEN across the page, light enough to read through, too plain to take away."""
    layer = Image.new("RGBA", page.size, (0, 0, 0, 0))
    size = page.width // 8
    ImageDraw.Draw(layer).text(
        (page.width // 2, page.height * 2 // 5),
        "SPECIMEN",
        font=_font(size, bold=True),
        fill=(*_RED, 60),
        anchor="mm",
    )
    turned = layer.rotate(18, Image.Resampling.BICUBIC, center=(page.width // 2, page.height * 2 // 5))
    return Image.alpha_composite(page.convert("RGBA"), turned).convert("RGB")
