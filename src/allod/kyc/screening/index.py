"""Finds, among all listed names, the few that a name has to be compared with.

Guarantees: read-only once built; the candidates of a name do not depend on what was asked before. Parts are
looked up by how they sound and by their consonants, each with up to one letter missing on either side; what
is alike in this way is then looked for in whole names. A listed name of which no part is alike is not found:
the price is measured, in docs/screening.md.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cached_property
from itertools import pairwise

import msgspec
import numpy as np
import numpy.typing as npt
from rapidfuzz import process
from rapidfuzz.distance import OSA

from allod.kyc.screening import align, names, words
from allod.kyc.screening.names import Name, Part

RARITY = 0.3  # the commonest part of a name weighs this much less than the rarest
_SKELETON_MIN = 3
_ALIKE_MIN = 0.62  # parts less alike than this are no reason to look at a name
_CANDIDATES_MAX = 10
_COVERED_MIN = 0.6  # of the shorter name, by weight: less is opposed and scores below every threshold
_ALIKE_KEPT_MAX = 100_000  # asked parts remembered with what they are like


Weights = npt.NDArray[np.float32]
Numbers = npt.NDArray[np.int32]

_TWO_PARTS = 2.0  # what two parts written as one word cover
_ONE = np.ones(1, dtype=np.float32)


class Listed(msgspec.Struct, frozen=True, gc=False):
    """One comparable name: which entity (by position) and which of its names."""

    entity: int
    which: int
    name: Name
    weight: float


class Index:
    """Over the names of entities, in their order."""

    def __init__(self, named: Iterable[Sequence[str]]) -> None:
        parsed = [(e, w, names.parse(text)) for e, texts in enumerate(named) for w, text in enumerate(texts)]
        parsed = [(e, w, n) for e, w, n in parsed if n.parts]
        self._counts = Counter(p.text for _, _, n in parsed for p in set(n.parts))
        self._commonest = math.log1p(max(self._counts.values(), default=1))
        self._weighed: dict[str, Part] = {}
        self.listed: list[Listed] = []
        names_of: dict[str, list[int]] = {}
        for e, w, n in parsed:
            weighed = self.weigh(n)
            self._add(Listed(e, w, weighed, sum(p.weight for p in weighed.parts)), names_of)
        self._weights = np.array([x.weight for x in self.listed], dtype=np.float32)
        self._names_of = {text: np.array(found, dtype=np.int32) for text, found in names_of.items()}
        self._alike: dict[str, tuple[Numbers, Weights]] = {}

    @cached_property
    def _near(self) -> dict[str, tuple[str, ...]]:
        return _by_key(self._names_of)

    @cached_property
    def _heard(self) -> dict[str, str]:
        return {text: names.sound(text) for text in self._names_of}

    def _add(self, listed: Listed, names_of: dict[str, list[int]]) -> None:
        number = len(self.listed)
        self.listed.append(listed)
        parts = [p for p in listed.name.parts if p.role != "title"]
        for text in {*(p.text for p in parts), *_joined(parts)}:
            names_of.setdefault(text, []).append(number)

    def weigh(self, name: Name) -> Name:
        """The name with its parts weighed by how rare they are among the listed ones."""
        return Name(tuple([self._weigh(p) for p in name.parts]), name.forms, name.abjad)

    def _weigh(self, part: Part) -> Part:
        if part.role != "name" or part.text not in self._counts:
            return part
        known = self._weighed.get(part.text)
        if known is None:
            share = math.log(self._counts[part.text]) / self._commonest
            known = Part(part.text, part.sound, part.role, round(part.weight * (1 - RARITY * share), 4))
            self._weighed[part.text] = known
        return known

    def candidates(self, name: Name) -> list[Listed]:
        """The listed names worth comparing with, the likeliest first. `name` is weighed."""
        parts = [p for p in name.parts if p.role != "title"]
        groups = [(part.weight, *self._like(part, abjad=name.abjad)) for part in parts]
        known = self._names_of
        groups += [(_TWO_PARTS, known[text], _ONE) for text in _joined(parts) if text in known]
        if not groups:
            return []
        covered = np.zeros(len(self.listed), dtype=np.float32)
        for weight, numbers, similarities in groups:
            covered[numbers] += weight * similarities
        asked = sum([p.weight for p in name.parts])
        touched = np.concatenate([numbers for _, numbers, _ in groups])
        enough = covered[touched] >= _COVERED_MIN * np.minimum(self._weights[touched], asked)
        found = np.unique(touched[enough])
        if len(found) == 0:
            return []
        share = covered[found] / (self._weights[found] + asked)
        order = np.argsort(-share, kind="stable")[:_CANDIDATES_MAX]
        return [self.listed[number] for number in found[order].tolist()]

    def _like(self, part: Part, *, abjad: bool) -> tuple[Numbers, Weights]:
        """The names that have a part like this one, and how like it the best of theirs is."""
        key = f"{part.text}~" if abjad else part.text
        known = self._alike.get(key)
        if known is None:
            if len(self._alike) >= _ALIKE_KEPT_MAX:
                self._alike.clear()
            known = self._alike[key] = self._merged(self._found(part, abjad=abjad))
        return known

    def _merged(self, alike: dict[str, float]) -> tuple[Numbers, Weights]:
        best: dict[int, float] = {}
        for text in sorted(alike, key=alike.__getitem__):  # ascending: the most alike is written last
            best.update(dict.fromkeys(self._names_of[text].tolist(), alike[text]))
        numbers = np.fromiter(best.keys(), dtype=np.int32, count=len(best))
        return numbers, np.fromiter(best.values(), dtype=np.float32, count=len(best))

    def _found(self, part: Part, *, abjad: bool) -> dict[str, float]:
        """Listed parts that are like the asked one, by letters, sound or, across scripts, consonants
        alone."""
        asked = part.text
        if len(asked) == 1:
            return {asked: 1.0} if asked in self._names_of else {}
        near: set[str] = set()
        for key in _keys(asked):
            near.update(self._near.get(key, ()))
        texts = list(near)
        heard = list(map(self._heard.__getitem__, texts))
        found = {
            texts[at]: similarity * align.SOUND_SHARE
            for _, similarity, at in _extract(part.sound, heard, 1 / align.SOUND_SHARE)
        }
        for text, similarity, _ in _extract(asked, texts, 1.0):
            found[text] = max(similarity, found.get(text, 0.0))
        if asked in words.DIMINUTIVES:
            for text in words.DIMINUTIVES.keys() & near:
                if words.DIMINUTIVES[text] & words.DIMINUTIVES[asked]:
                    found[text] = max(align.DIMINUTIVE, found.get(text, 0.0))
        if abjad:
            bones = [names.skeleton(text) for text in texts]
            for _, similarity, at in _extract(names.skeleton(asked), bones, 1 / align.CONSONANTS):
                found[texts[at]] = max(similarity * align.CONSONANTS, found.get(texts[at], 0.0))
        return found


def _extract(asked: str, choices: list[str], scale: float) -> list[tuple[str, float, int]]:
    return process.extract(
        asked, choices, scorer=OSA.normalized_similarity, score_cutoff=_ALIKE_MIN * scale, limit=None
    )


def _joined(parts: Sequence[Part]) -> list[str]:
    return [a.text + b.text for a, b in pairwise(parts)]


def _keys(text: str) -> set[str]:
    """What two parts that are alike mostly have in common."""
    heard = names.sound(text)
    found = {heard}
    if len(heard) > 2:
        found.update([heard[:i] + heard[i + 1 :] for i in range(len(heard))])
    bones = "~" + names.skeleton(text)
    if len(bones) > _SKELETON_MIN:
        found.add(bones)
        if len(bones) > _SKELETON_MIN + 1:
            found.update([bones[:i] + bones[i + 1 :] for i in range(1, len(bones))])
    found.update([f"={family}" for family in words.DIMINUTIVES.get(text, ())])
    return found


def _by_key(texts: Iterable[str]) -> dict[str, tuple[str, ...]]:
    found: dict[str, list[str]] = {}
    for text in texts:
        for key in _keys(text):
            found.setdefault(key, []).append(text)
    return {key: tuple(values) for key, values in found.items()}
