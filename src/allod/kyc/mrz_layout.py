"""Where everything stands in a machine-readable zone, which characters may stand there, and what has to hold.

Guarantees: the five layouts of ICAO Doc 9303 (parts 4 to 7) as data: TD1, TD2, TD3, MRV-A, MRV-B. A `Unit` is
the smallest part that can be judged by itself: its positions, their alphabets, and one rule over them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import date

import msgspec

from allod.kyc import dates
from allod.kyc.states import ISSUERS, NATIONALITIES, coded

FILLER = "<"
DIGITS = "0123456789"
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
ALPHABET = DIGITS + LETTERS + FILLER
_ALPHA = LETTERS + FILLER
_DATE = DIGITS + FILLER
_WEIGHTS = (7, 3, 1)
_NAME = re.compile(r"[A-Z]+(?:<[A-Z]+)*(?:<<[A-Z]+(?:<[A-Z]+)*)?<*")

Rule = Callable[[Sequence[str], date], bool]


def value(character: str) -> int:
    """What a character counts in a check digit: 0-9, A=10 … Z=35, `<`=0."""
    return 0 if character == FILLER else int(character, 36)


def check_digit(text: str) -> int:
    """Doc 9303 part 3, section 4.9: weights 7, 3, 1, modulo 10."""
    return sum(value(c) * _WEIGHTS[i % 3] for i, c in enumerate(text)) % 10


def residues() -> tuple[str, ...]:
    """The characters that no check digit tells apart, by what they count modulo 10.

    7, 3 and 1 have inverses modulo 10, so replacing one character is invisible just if both count the same.
    """
    return tuple("".join(c for c in ALPHABET if value(c) % 10 == n) for n in range(10))


class Slot(msgspec.Struct, frozen=True):
    """Consecutive positions of one line, `start` to before `end`, from 0, with an alphabet for each."""

    name: str
    line: int
    start: int
    alphabets: tuple[str, ...]

    @property
    def end(self) -> int:
        return self.start + len(self.alphabets)


class Unit(msgspec.Struct, frozen=True):
    """Slots that one rule binds together."""

    slots: tuple[Slot, ...]
    rule: Rule
    backed_by: tuple[str, ...]  # what speaks for it beside the alphabets


class Layout(msgspec.Struct, frozen=True):
    """One of the five forms. `composite` names, in order, the stretches its last digit is computed over."""

    name: str
    lines: int
    length: int
    units: tuple[Unit, ...]
    composite: tuple[tuple[int, int, int], ...] = ()  # line, start, end
    composite_at: tuple[int, int] = (0, 0)  # line, column


# --- rules --------------------------------------------------------------------------------------------------


def _anything(_texts: Sequence[str], _today: date) -> bool:
    return True


def _issuer(texts: Sequence[str], _today: date) -> bool:
    return coded(texts[0], ISSUERS)


def _nationality(texts: Sequence[str], _today: date) -> bool:
    return coded(texts[0], NATIONALITIES)


def _name(texts: Sequence[str], _today: date) -> bool:
    return _NAME.fullmatch(texts[0]) is not None


def holds(text: str, digit: str) -> bool:
    """Whether `digit` is the check digit of `text`; of what holds unread places, none is."""
    return (
        digit != ""
        and digit in DIGITS
        and all(c in ALPHABET for c in text)
        and check_digit(text) == int(digit)
    )


def _number(texts: Sequence[str], _today: date) -> bool:
    return holds(texts[0], texts[1])


def overflow(optional: str) -> tuple[str, str, str]:
    """Rest of a long document number, its check digit, and what stays optional; empty where there is none."""
    rest, _, remains = optional.partition(FILLER)
    return rest[:-1], rest[-1:], remains


def _number_or_overflow(texts: Sequence[str], _today: date) -> bool:
    """A number of more than nine characters goes on in the optional data, its check digit after it."""
    number, digit, optional = texts
    if digit != FILLER:
        return holds(number, digit)
    rest, last, _ = overflow(optional)
    return bool(rest) and number[-1] != FILLER and holds(number + rest, last)


def _optional(texts: Sequence[str], _today: date) -> bool:
    """Where nothing is stated, its check digit may be a filler."""
    return holds(*texts) or (texts[1] == FILLER and not texts[0].strip(FILLER))


def _dated(read: Callable[[str, date], dates.Dated]) -> Rule:
    def rule(texts: Sequence[str], today: date) -> bool:
        if not holds(*texts):
            return False
        try:
            read(texts[0], today)
        except ValueError:
            return False
        return True

    return rule


# --- layouts ------------------------------------------------------------------------------------------------


def _slot(name: str, line: int, start: int, *alphabets: tuple[str, int]) -> Slot:
    return Slot(name, line, start, tuple(a for a, count in alphabets for _ in range(count)))


def _type(first: str) -> Unit:
    second = _ALPHA if first in "PV" else _ALPHA.replace("V", "")  # AV, CV and IV are not to be used
    return Unit((_slot("document_type", 0, 0, (first, 1), (second, 1)),), _anything, ())


def _state(name: str, line: int, start: int, rule: Rule) -> Unit:
    return Unit((_slot(name, line, start, (LETTERS, 1), (_ALPHA, 2)),), rule, ("code list",))


def _names(line: int, start: int, length: int) -> Unit:
    return Unit((_slot("name", line, start, (LETTERS, 1), (_ALPHA, length - 1)),), _name, ())


def _date(name: str, line: int, start: int, read: Callable[[str, date], dates.Dated]) -> Unit:
    slots = (_slot(name, line, start, (_DATE, 6)), _slot(name + "_check", line, start + 6, (DIGITS, 1)))
    return Unit(slots, _dated(read), ("calendar", "check digit"))


def _sex(line: int, start: int) -> Unit:
    return Unit((_slot("sex", line, start, ("MF<", 1)),), _anything, ())


def _numbered(line: int, start: int) -> tuple[Slot, Slot]:
    number = _slot("number", line, start, (DIGITS + LETTERS, 1), (ALPHABET, 8))
    return number, _slot("number_check", line, start + 9, (DIGITS, 1))


def _overflowing(line: int, start: int, optional: Slot) -> Unit:
    number, _ = _numbered(line, start)
    check = _slot("number_check", line, start + 9, (_DATE, 1))
    return Unit((number, check, optional), _number_or_overflow, ("check digit",))


def _composite(line: int, start: int) -> Unit:
    return Unit((_slot("composite_check", line, start, (DIGITS, 1)),), _anything, ())


def _free(name: str, line: int, start: int, length: int) -> Unit:
    return Unit((_slot(name, line, start, (ALPHABET, length)),), _anything, ())


def _two_lines(length: int, first: str) -> tuple[Unit, ...]:
    """What all forms of two lines share."""
    return (
        _type(first),
        _state("issuer", 0, 2, _issuer),
        _names(0, 5, length - 5),
        _state("nationality", 1, 10, _nationality),
        _date("birth_date", 1, 13, dates.birth),
        _sex(1, 20),
        _date("expiry_date", 1, 21, dates.expiry),
    )


_CHECKED_NUMBER = Unit(_numbered(1, 0), _number, ("check digit",))
_TD3_OPTIONAL = Unit(
    (_slot("optional", 1, 28, (ALPHABET, 14)), _slot("optional_check", 1, 42, (_DATE, 1))),
    _optional,
    ("check digit",),
)

TD1 = Layout(
    "TD1",
    3,
    30,
    (
        _type("ACI"),
        _state("issuer", 0, 2, _issuer),
        _overflowing(0, 5, _slot("optional", 0, 15, (ALPHABET, 15))),
        _date("birth_date", 1, 0, dates.birth),
        _sex(1, 7),
        _date("expiry_date", 1, 8, dates.expiry),
        _state("nationality", 1, 15, _nationality),
        _free("optional_2", 1, 18, 11),
        _composite(1, 29),
        _names(2, 0, 30),
    ),
    ((0, 5, 30), (1, 0, 7), (1, 8, 15), (1, 18, 29)),
    (1, 29),
)
TD2 = Layout(
    "TD2",
    2,
    36,
    (
        *_two_lines(36, "ACI"),
        _overflowing(1, 0, _slot("optional", 1, 28, (ALPHABET, 7))),
        _composite(1, 35),
    ),
    ((1, 0, 10), (1, 13, 20), (1, 21, 35)),
    (1, 35),
)
TD3 = Layout(
    "TD3",
    2,
    44,
    (*_two_lines(44, "P"), _CHECKED_NUMBER, _TD3_OPTIONAL, _composite(1, 43)),
    ((1, 0, 10), (1, 13, 20), (1, 21, 43)),
    (1, 43),
)
MRV_A = Layout("MRV-A", 2, 44, (*_two_lines(44, "V"), _CHECKED_NUMBER, _free("optional", 1, 28, 16)))
MRV_B = Layout("MRV-B", 2, 36, (*_two_lines(36, "V"), _CHECKED_NUMBER, _free("optional", 1, 28, 8)))

LAYOUTS: tuple[Layout, ...] = (TD3, TD1, TD2, MRV_A, MRV_B)
