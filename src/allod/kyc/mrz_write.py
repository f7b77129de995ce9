"""Writes a machine-readable zone: fills up, and computes every check digit (ICAO Doc 9303 part 3).

For specimens and tests. Guarantees: what is written here `mrz.read` calls valid, if the parts are.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping

from allod.kyc.mrz_layout import FILLER, Layout, check_digit

_NUMBER_LENGTH = 9
# Doc 9303 part 3, section 6.A: letters that are more than a base letter with a mark.
_LETTERS = {
    "Ä": "AE", "Ö": "OE", "Ü": "UE", "Å": "AA", "Æ": "AE", "Ø": "OE", "Ł": "L", "Đ": "D", "Þ": "TH",
}  # fmt: skip


def transliterated(name: str) -> str:
    """A Latin name as the zone has it: `Åsa-Lena d'Øst` becomes `AASA<LENA<DOEST`."""
    upper = "".join(_LETTERS.get(c, c) for c in unicodedata.normalize("NFC", name).upper())
    plain = "".join(c for c in unicodedata.normalize("NFD", upper) if not unicodedata.combining(c))
    return re.sub(r"[^A-Z]+", FILLER, plain.replace("'", "").replace("’", "")).strip(FILLER)


def write(layout: Layout, parts: Mapping[str, str]) -> tuple[str, ...]:
    """The lines. `parts` holds texts by slot name; what is short is filled up, what is long is cut.

    A document number of more than nine characters runs over into the optional data, if that is allowed.
    """
    grid = [[FILLER] * layout.length for _ in range(layout.lines)]
    for unit in layout.units:
        texts = {slot.name: parts.get(slot.name, "") for slot in unit.slots}
        number = texts.get("number", "")
        overflows = len(number) > _NUMBER_LENGTH and "optional" in texts
        if overflows:
            texts["number"] = number[:_NUMBER_LENGTH]
            rest = number[_NUMBER_LENGTH:]
            texts["optional"] = f"{rest}{check_digit(number)}{FILLER}{texts['optional']}"
        for slot in unit.slots:
            if slot.name.endswith("_check"):
                continue
            length = slot.end - slot.start
            grid[slot.line][slot.start : slot.end] = texts[slot.name][:length].ljust(length, FILLER)
        for slot in unit.slots:
            checked = slot.name.removesuffix("_check")
            if checked != slot.name and checked in texts and not (checked == "number" and overflows):
                over = next(s for s in unit.slots if s.name == checked)
                grid[slot.line][slot.start] = str(
                    check_digit("".join(grid[over.line][over.start : over.end]))
                )
    if layout.composite:
        covered = "".join("".join(grid[line][start:end]) for line, start, end in layout.composite)
        line, column = layout.composite_at
        grid[line][column] = str(check_digit(covered))
    return tuple("".join(line) for line in grid)
