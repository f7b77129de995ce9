"""Finds a machine-readable zone in recognised text: noise around, blanks, lower case, other marks for `<`.

Guarantees: a line that is too short or too long is brought to its length only by fillers, where fillers
stand, and only if the rules then hold; a name on such a line stays doubtful, because no digit covers it.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator

import msgspec

from allod.clock import Clock
from allod.errors import Unprocessable
from allod.kyc import mrz
from allod.kyc.mrz_layout import ALPHABET, FILLER, LAYOUTS
from allod.kyc.mrz_repair import UNREAD
from allod.limits import MRZ_TEXT_CHARACTERS_MAX

_FILLERS = str.maketrans(
    dict.fromkeys("‹＜〈≤⟨", FILLER) | dict.fromkeys("«《≪", FILLER * 2) | {"€": "C", "|": "I"}
)
_OFF_MAX = 6  # characters that a line may lack or have too many: engines lose count in long runs of fillers
_UNREAD_MAX = 3  # marks outside the alphabet in one line; more is not a zone
_INVALID_MAX = 2  # fields; more, and it is some other text
_HOLDING_MIN = (
    2  # check digits that hold as they stand or repaired: by chance one in a hundred texts has them
)


def find(text: str, clock: Clock) -> mrz.Mrz | None:
    """The zone in `text` that fewest things speak against, or None. Its positions are within the zone."""
    best: mrz.Mrz | None = None
    for lines, added in _candidates(text[:MRZ_TEXT_CHARACTERS_MAX]):
        try:
            found = mrz.read(lines, clock)
        except Unprocessable:
            continue
        if not _plausible(found):
            continue
        found = _with_doubts(found, added)
        if best is None or mrz.burden(found) < mrz.burden(best):
            best = found
        elif mrz.burden(found) == mrz.burden(best) and found.lines != best.lines:
            best = mrz.either(best, found)
    return best


def _plausible(found: mrz.Mrz) -> bool:
    invalid, _, _ = mrz.burden(found)
    stated = [f for f in found.fields if f.value or f.candidates]  # fillers fit every check digit
    holding = sum(f.status != "invalid" for f in stated if "check digit" in f.backed_by)
    return invalid <= _INVALID_MAX and holding >= _HOLDING_MIN


def _candidates(text: str) -> Iterator[tuple[tuple[str, ...], dict[int, int]]]:
    """Lines that have the shape of a zone, and by line the fillers that were added to get there."""
    rows = [_normal(row) for row in text.splitlines()]
    rows = [row for row in rows if row]
    for shape in dict.fromkeys((layout.lines, layout.length) for layout in LAYOUTS):
        count, length = shape
        fitted = [_fitted(row, length) for row in rows]
        for i in range(len(rows) - count + 1):
            together = fitted[i : i + count]
            if not all(together) or not any(FILLER in row for row in rows[i : i + count]):
                continue
            for lines in itertools.product(*together):
                added = {n: length - len(rows[i + n]) for n in range(count) if len(rows[i + n]) != length}
                yield lines, added


def _normal(row: str) -> str:
    """Capitals without blanks and markup. Empty where it cannot be a line of a zone."""
    row = row.replace("&lt;", FILLER).replace("\\", "").strip("#*`_ ").translate(_FILLERS).upper()
    row = "".join(c if c in ALPHABET else UNREAD for c in row if not c.isspace())
    row = row.strip(UNREAD)
    return "" if row.count(UNREAD) > _UNREAD_MAX else row


def _fitted(row: str, length: int) -> list[str]:
    """The row with its length made right by fillers: every way there is to do so in one run of them."""
    missing = length - len(row)
    if missing == 0:
        return [row]
    if abs(missing) > _OFF_MAX:
        return []
    runs = [run for run in re.finditer(FILLER + "+", row) if len(run[0]) + missing >= 1]
    found = [row[: r.start()] + FILLER * (len(r[0]) + missing) + row[r.end() :] for r in runs]
    if missing > 0 and not row.endswith(FILLER):
        found.append(row + FILLER * missing)
    return found


def _with_doubts(found: mrz.Mrz, added: dict[int, int]) -> mrz.Mrz:
    """Says what a line of the wrong length means: what two check digits confirm unchanged still stands.

    A repair on top would be a second guess, and two guesses together can be made to fit anything.
    """
    if not added:
        return found
    fields = []
    composite = any(f.name == "composite_check" and f.status == "valid" for f in found.fields)
    for f in found.fields:
        n = added.get(f.line, 0)
        way = f"{n} fillers were added to its line" if n > 0 else f"{-n} fillers were taken from its line"
        own_digit = "check digit" in f.backed_by
        status: mrz.Status = f.status
        if n and f.status in ("valid", "repaired"):
            status = "repaired" if f.status == "valid" and own_digit and composite else "doubtful"
        elif f.status == "repaired" and not own_digit:
            status, way = "doubtful", "another line had the wrong length"
        if status != f.status:
            reason = f"{f.reason}; {way}" if f.reason else way
            candidates = (f.value,) if status == "doubtful" and f.value else f.candidates
            f = msgspec.structs.replace(f, status=status, reason=reason, candidates=candidates)
        fields.append(f)
    return msgspec.structs.replace(found, fields=tuple(fields))
