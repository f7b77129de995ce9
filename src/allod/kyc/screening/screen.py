"""Screens who is asked about against the lists, and says why somebody was found.

Guarantees: the same question, lists and scheme give the same answer; an entity is found once, by its best
name; every match carries its comparison. `exhaustive` compares with every listed name, else the index
chooses those worth it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from allod.errors import Unprocessable
from allod.kyc.screening import names, score
from allod.kyc.screening.align import Link
from allod.kyc.screening.entity import Entity, Kind, ListedName, Span
from allod.kyc.screening.index import Index, Listed
from allod.kyc.screening.names import Name
from allod.kyc.screening.score import Comparison, Factor

THRESHOLD = 0.5  # docs/screening.md has the curve to choose another one by


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """Who is asked about. Country as ISO 3166 alpha-2."""

    name: str
    born: Span | None = None
    country: str = ""
    kind: Kind = "unknown"


class Match(msgspec.Struct, frozen=True, kw_only=True):
    """One listed entity that may be meant, by which of its names, and what that rests on."""

    score: float
    entity: Entity
    by: ListedName
    comparison: Comparison


class Screener:
    """Over the entities of any number of lists. Building it takes seconds for a hundred thousand names."""

    def __init__(self, entities: Iterable[Entity]) -> None:
        self._entities = tuple(entities)
        self._index = Index([[n.text for n in e.names] for e in self._entities])

    @property
    def names(self) -> int:
        """How many names are compared with."""
        return len(self._index.listed)

    def screen(
        self, question: Question, *, threshold: float = THRESHOLD, exhaustive: bool = False
    ) -> list[Match]:
        """Who reaches the threshold, the likeliest first. Unprocessable `kyc.name-empty`."""
        asked = self._index.weigh(names.parse(question.name))
        if not asked.parts:
            said = f"{question.name[:80]!r} has no letter or digit to compare"
            raise Unprocessable("kyc.name-empty", said, hint="give a name")
        listed = self._index.listed if exhaustive else self._index.candidates(asked)
        best: dict[int, tuple[float, Listed, list[Factor]]] = {}
        known: dict[int, list[Factor]] = {}
        for one in listed:
            entity = self._entities[one.entity]
            if one.entity not in known:
                known[one.entity] = _evidence(question, entity)
            evidence = known[one.entity]
            if entity.names[one.which].kind == "weak":
                evidence = [*evidence, score.weak()]
            value = score.logistic(score.odds(asked, one.name, entity.kind, evidence))
            before = best.get(one.entity)
            if value >= threshold and (before is None or value > before[0]):
                best[one.entity] = (value, one, evidence)
        found = [self._match(asked, one, evidence) for _, one, evidence in best.values()]
        return sorted(found, key=lambda m: (-m.score, m.entity.list, m.entity.id))

    def _match(self, asked: Name, one: Listed, evidence: Sequence[Factor]) -> Match:
        entity = self._entities[one.entity]
        comparison = score.compare(asked, one.name, entity.kind, evidence)
        return Match(score=comparison.score, entity=entity, by=entity.names[one.which], comparison=comparison)


def _evidence(question: Question, entity: Entity) -> list[Factor]:
    found = (
        score.birth(question.born, entity.births) if question.born else None,
        score.country(question.country, entity.countries) if question.country else None,
        score.kinds(question.kind, entity.kind),
    )
    return [factor for factor in found if factor]


def explain(match: Match) -> list[str]:
    """The match in words, a line for each thing that counted."""
    lines = [_link(link) for link in match.comparison.links]
    lines += [f"{f.words}: {f.effect:+.2f}" for f in match.comparison.factors if f.name != "base"]
    return lines


_HOW = {
    "same": "is the same as", "spelling": "is spelled nearly as", "sound": "sounds nearly as",
    "initial": "is the initial of", "initials": "are the initials of", "diminutive": "is a short form of",
    "joined": "is written apart as", "consonants": "has the consonants of",
}  # fmt: skip


def _link(link: Link) -> str:
    left, right = (" ".join(p.text for p in side) for side in (link.left, link.right))
    likeness = "" if link.how == "same" else f" ({link.similarity:.0%} alike)"
    counts = "" if link.weight >= 1 else f", and counts {link.weight:.2g} of a rare part"
    return f"{left} {_HOW[link.how]} {right}{likeness}{counts}"
