"""How likely two names are one: a sum of declared costs, each of which can be shown.

Guarantees: pure, symmetric and deterministic; the score is in 0..1 and is the logistic of `base` minus the
costs and plus the evidence that is shown, nothing else. The costs of names were fitted by logistic
regression on labelled pairs (docs/screening.md says which, when and how well); the evidence of birth dates,
countries and kinds is declared, not fitted, because no labelled data was at hand for it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

from allod.kyc.screening.align import Alignment, Link, align
from allod.kyc.screening.entity import Kind, Span
from allod.kyc.screening.names import Name, Part

FACTORS = ("difference", "letters", "unmatched", "opposed", "extra", "single", "form", "qualified")
TELLING_MIN = 0.45  # parts of less weight (titles, particles) neither oppose nor add anything
_OPPOSED_MIN = 0.5  # two numbers do not oppose each other: funds and ships of one owner
_INITIALS = frozenset({"initial", "initials"})
_LETTERS_MAX = 4
_EXTRA_MAX = 4.0


class Scheme(msgspec.Struct, frozen=True):
    """One version of the scoring: the logit of two equal names, and what each factor takes from it per
    unit."""

    version: str
    base: float
    costs: tuple[float, ...]  # in the order of FACTORS


class Factor(msgspec.Struct, frozen=True, gc=False):
    """How much one observation moved the score: `effect` in units of log-odds, negative against a match."""

    name: str
    value: float
    effect: float
    words: str


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """A score with everything it rests on."""

    score: float
    scheme: str
    links: tuple[Link, ...]
    only_left: tuple[Part, ...]
    only_right: tuple[Part, ...]
    factors: tuple[Factor, ...]


# Logit of equal names and the cost of each factor, from `python bench/screening.py --fit`.
SCHEME = Scheme("names-1", 3.8432, (5.7793, 1.2898, 0.8049, 6.2644, 0.8603, 1.8827, 2.2949, 5.8063))

# Declared evidence, in log-odds. Being wrong about a birth date is rarer than two people sharing a name.
BORN_SAME_DAY = 1.5
BORN_SAME_YEAR = 0.75
BORN_NEAR = 0.0  # a year apart, or day and month swapped: typing errors and calendars
BORN_OTHER = -3.0
COUNTRY_SAME = 0.5
COUNTRY_OTHER = -0.5  # people have moved and have several nationalities
KIND_OTHER = -3.0
WEAK_NAME = -1.5  # what lists themselves call weak: nicknames and single words that many people answer to


def measure(a: Name, b: Name, found: Alignment, kind: Kind = "unknown") -> tuple[float, ...]:
    """The factors of a pair, in the order of FACTORS; all of them 0 for equal names."""
    total = 0.0
    for p in a.parts:
        total += p.weight
    other = 0.0
    for p in b.parts:
        other += p.weight
    total = max(total, other)
    if total == 0 or not a.parts or not b.parts:
        return (1.0, float(_LETTERS_MAX), 1.0, 1.0, 0.0, 0.0, 0.0, 0.0)
    loss = 0.0
    letters = 0
    anchored = kind == "organisation"  # organisations are known by their initials alone, people are not
    for link in found.links:
        if link.how not in _INITIALS and link.weight >= TELLING_MIN:
            anchored = True
        if link.similarity < 1.0:
            weight = link.weight
            loss += weight * (1.0 - link.similarity)
            if link.edits > letters and weight >= TELLING_MIN:
                letters = link.edits
    left = sum([p.weight for p in found.left])
    right = sum([p.weight for p in found.right])
    conflict, extra = (left, right - left) if left < right else (right, left - right)
    single = 0.0
    if extra >= TELLING_MIN:
        telling = [sum([p.role != "title" for p in name.parts]) for name in (a, b)]
        single = 1.0 if min(telling) <= 1 < max(telling) else 0.0
    return (
        loss / total,
        float(min(letters, _LETTERS_MAX)),
        conflict / total,
        1.0 if not anchored or (conflict >= TELLING_MIN and max(left, right) >= _OPPOSED_MIN) else 0.0,
        min(extra, _EXTRA_MAX),
        single,
        1.0 if a.forms and b.forms and a.forms.isdisjoint(b.forms) else 0.0,
        extra / total if kind == "organisation" else 0.0,
    )


def logit(values: Sequence[float], scheme: Scheme = SCHEME) -> float:
    """The log-odds of a match."""
    return scheme.base - sum([c * v for c, v in zip(scheme.costs, values, strict=True)])


def logistic(x: float) -> float:
    """Log-odds as a score in 0..1."""
    return 1.0 / (1.0 + math.exp(-x)) if x > -700 else 0.0


def score(a: Name, b: Name, kind: Kind = "unknown") -> float:
    """The score of two names alone, without the words."""
    return logistic(logit(measure(a, b, align(a, b), kind)))


def odds(a: Name, b: Name, kind: Kind, evidence: Sequence[Factor]) -> float:
    """The log-odds of two names and of what else is known."""
    return logit(measure(a, b, align(a, b), kind)) + sum([f.effect for f in evidence])


def compare(a: Name, b: Name, kind: Kind = "unknown", evidence: Sequence[Factor] = ()) -> Comparison:
    """The score of two names and of what else is known, with what it rests on."""
    found = align(a, b)
    values = measure(a, b, found, kind)
    factors = [
        Factor(name, round(value, 4), round(-cost * value, 4), _words(name, found, value))
        for name, value, cost in zip(FACTORS, values, SCHEME.costs, strict=True)
        if value
    ]
    total = logit(values) + sum([f.effect for f in evidence])
    return Comparison(
        score=logistic(total), scheme=SCHEME.version, links=found.links,
        only_left=found.left, only_right=found.right,
        factors=(Factor("base", 1.0, SCHEME.base, "two names without any difference"), *factors, *evidence),
    )  # fmt: skip


def _words(factor: str, found: Alignment, value: float) -> str:
    only = " against ".join(" ".join(p.text for p in side) for side in (found.left, found.right) if side)
    match factor:
        case "difference":
            return f"{value:.0%} of the name is spelled differently"
        case "letters":
            return f"{value:.0f}{' or more' if value >= _LETTERS_MAX else ''} letters to change in one part"
        case "opposed" if not only:
            return "nothing but initials agrees"
        case "unmatched" | "opposed":
            return f"parts that stand for nothing in the other name: {only}"
        case "extra" | "qualified":
            return f"parts that only one of the names has: {only}"
        case "single":
            return "one of the names is a single part"
    return "the legal forms differ"


def birth(asked: Span, listed: Sequence[Span]) -> Factor | None:
    """What birth dates say: the best of the listed ones counts. None where nothing is listed."""
    if not listed:
        return None
    best = max((_birth(asked, one), one.first, one.last) for one in listed)
    said = {BORN_SAME_DAY: "the day of birth is the same", BORN_SAME_YEAR: "the birth dates can be the same"}
    said |= {BORN_NEAR: "the birth dates nearly agree", BORN_OTHER: "the birth dates differ"}
    days = best[1] if best[1] == best[2] else f"{best[1]} to {best[2]}"
    return Factor("birth", 1.0, best[0], f"{said[best[0]]} (listed: {days})")


def _birth(asked: Span, listed: Span) -> float:
    if asked.exact and listed.exact:
        if asked.first == listed.first:
            return BORN_SAME_DAY
        swapped = f"{listed.first[:4]}-{listed.first[8:]}-{listed.first[5:7]}"
        one_digit = sum(x != y for x, y in zip(asked.first, listed.first, strict=True)) == 1
        if asked.first == swapped or one_digit or asked.first[:4] == listed.first[:4]:
            return BORN_NEAR
        return BORN_OTHER
    (low, high), (first, last) = asked.years, listed.years
    if low <= last and first <= high:
        return BORN_SAME_YEAR
    return BORN_NEAR if low - 1 <= last and first <= high + 1 else BORN_OTHER


def country(asked: str, listed: Sequence[str]) -> Factor | None:
    """What countries say. None where nothing is listed."""
    if not listed:
        return None
    if asked in listed:
        return Factor("country", 1.0, COUNTRY_SAME, f"{asked} is listed as a country")
    return Factor(
        "country", 1.0, COUNTRY_OTHER, f"{asked} is not among the listed countries ({', '.join(listed)})"
    )


def weak() -> Factor:
    """What it says that the listed name is a weak one."""
    return Factor("weak", 1.0, WEAK_NAME, "the list itself calls this name a weak one")


def kinds(asked: Kind, listed: Kind) -> Factor | None:
    """What the kinds say: an organisation is no person."""
    if "unknown" in (asked, listed) or asked == listed:
        return None
    return Factor("kind", 1.0, KIND_OTHER, f"asked for {asked}, listed as {listed}")
