"""What a list says about one entry. Frozen, and free of any list's own format."""

from __future__ import annotations

import re
from typing import Literal

import msgspec

Kind = Literal["person", "organisation", "vessel", "aircraft", "unknown"]
KINDS: tuple[Kind, ...] = ("person", "organisation", "vessel", "aircraft", "unknown")
NameKind = Literal["strong", "weak", "alias", "former"]

_ISO = re.compile(r"(\d{4})(?:-(\d{2})(?:-(\d{2}))?)?")
APPROXIMATE_YEARS = 2  # what "circa" is taken to span on either side


class ListedName(msgspec.Struct, frozen=True):
    """One name as the list writes it. `language` is what the list says (ISO 639 where it is a code)."""

    text: str
    kind: NameKind = "strong"
    language: str = ""


class Span(msgspec.Struct, frozen=True):
    """A birth date as far as it is known: every day from `first` to `last` (both ISO 8601, equal where
    exact)."""

    first: str
    last: str
    approximate: bool = False

    @property
    def exact(self) -> bool:
        return self.first == self.last and not self.approximate

    @property
    def years(self) -> tuple[int, int]:
        slack = APPROXIMATE_YEARS if self.approximate else 0
        return int(self.first[:4]) - slack, int(self.last[:4]) + slack


class Identifier(msgspec.Struct, frozen=True):
    """A number that a list gives: passport, tax number, IMO. `kind` in the list's words."""

    kind: str
    value: str
    country: str = ""


class Entity(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of one list. `id` is the list's own; countries are ISO 3166 alpha-2, or as written if
    unknown."""

    id: str
    list: str
    kind: Kind
    names: tuple[ListedName, ...]
    births: tuple[Span, ...] = ()
    countries: tuple[str, ...] = ()
    programmes: tuple[str, ...] = ()
    identifiers: tuple[Identifier, ...] = ()
    remarks: str = ""


def span(text: str, *, approximate: bool = False) -> Span | None:
    """The days that `1971`, `1971-05` or `1971-05-03` means; None for anything else, impossible months
    included."""
    found = _ISO.fullmatch(text.strip())
    if not found:
        return None
    year, month, day = found.groups()
    if int(year) == 0 or (month and not 1 <= int(month) <= 12) or (day and not 1 <= int(day) <= 31):
        return None
    first = f"{year}-{month or '01'}-{day or '01'}"
    last = f"{year}-{month or '12'}-{day or '31'}"
    return Span(first, last, approximate)


def years(first: str, last: str) -> Span | None:
    """From the beginning of one date to the end of another."""
    a, b = span(first), span(last)
    return Span(a.first, b.last) if a and b and a.first <= b.last else None
