"""The six-digit dates of a machine-readable zone: real days only, and the century said, not assumed.

Guarantees: what is returned exists in the calendar; the zone does not carry a century, so every other one
that is possible is returned too. Source: ICAO Doc 9303 part 3, section 4.8: YYMMDD, unknown parts are `<<`.
"""

from __future__ import annotations

import calendar
import re
from datetime import date

import msgspec

_FORM = re.compile(r"(\d\d)(?:(\d\d)(\d\d|<<)|<<<<)")
UNKNOWN = "<<<<<<"
_OLDEST_YEARS = 122  # the longest life on record
_USUAL_EXPIRY_YEARS = 20  # twice the longest usual validity; beyond, the other century is as likely


class Dated(msgspec.Struct, frozen=True):
    """A date as ISO 8601, shortened to what is known (`1970-04`, `1970`, or empty)."""

    value: str
    others: tuple[str, ...] = ()  # the same digits in another century, where that is possible too


def birth(text: str, today: date) -> Dated:
    """The latest century in which the day is not after today. Raises ValueError with the reason."""
    found = [c for c in _centuries(text) if c <= today and today.year - c.year <= _OLDEST_YEARS]
    return _in_century(text, sorted(found, reverse=True))


def expiry(text: str, today: date) -> Dated:
    """The century nearest to today; both where that is unusually far. Raises ValueError with the reason."""
    found = sorted(_centuries(text), key=lambda c: abs((c - today).days))
    if found and abs(found[0].year - today.year) <= _USUAL_EXPIRY_YEARS:
        found = found[:1]
    return _in_century(text, found)


def _centuries(text: str) -> list[date]:
    """The first possible day in each century. Raises ValueError where there is none."""
    if text == UNKNOWN:
        return []
    form = _FORM.fullmatch(text)
    if form is None:
        raise ValueError("it is not six digits, nor digits with unknown parts as fillers")
    year, month, day = form[1], form[2], form[3]
    if month and not 1 <= int(month) <= 12:
        raise ValueError(f"there is no month {month}")
    found = []
    for century in (1900, 2000):
        full = century + int(year)
        first = int(day) if day and day != "<<" else 1
        if month and not 1 <= first <= calendar.monthrange(full, int(month))[1]:
            continue
        found.append(date(full, int(month or 1), first))
    if not found:
        raise ValueError(f"month {month} has no day {day}")
    return found


def _in_century(text: str, found: list[date]) -> Dated:
    if text == UNKNOWN:
        return Dated("")
    if not found:
        raise ValueError("no century makes it a possible day")
    precision = 10 if text.isdigit() else 7 if text[2:4] != "<<" else 4
    values = [one.isoformat()[:precision] for one in found]
    return Dated(values[0], tuple(values[1:]))
