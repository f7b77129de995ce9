"""Which part of one name stands for which part of the other, in any order.

Guarantees: symmetric (`align(a, b)` is `align(b, a)` mirrored) and deterministic; every part is in exactly
one link or in exactly one rest; a link says how it came about.
"""

from __future__ import annotations

from typing import Literal

import msgspec
from rapidfuzz.distance import OSA

from allod.kyc.screening import names, words
from allod.kyc.screening.names import Name, Part

How = Literal[
    "same", "spelling", "sound", "initial", "initials", "diminutive", "joined", "consonants", "acronym"
]

CERTAIN_MIN = 0.8  # from here on a link is made before run-together words are looked for
LINK_MIN = 0.4  # below it two parts are not two spellings of one word
SOUND_SHARE = 0.97  # a match by sound alone is worth a little less than one by letters
_INITIAL = 0.8
DIMINUTIVE = 0.85
CONSONANTS = 0.9
_JOINED = 0.98
_JOIN_MIN = 0.8

_osa = OSA.distance


class Link(msgspec.Struct, frozen=True, gc=False):
    """Parts of the left name that stand for parts of the right one. `similarity` is 0..1."""

    left: tuple[Part, ...]
    right: tuple[Part, ...]
    how: How
    similarity: float
    edits: int  # letters to change; 0 where the link is not by letters

    @property
    def weight(self) -> float:
        return max(sum(p.weight for p in self.left), sum(p.weight for p in self.right))


class Alignment(msgspec.Struct, frozen=True, gc=False):
    """The links, and what is left over on either side."""

    links: tuple[Link, ...]
    left: tuple[Part, ...]
    right: tuple[Part, ...]


def compare(p: Part, q: Part, *, abjad: bool) -> tuple[float, How, int]:
    """How alike two parts are, by the best of the ways that apply."""
    a, b = p.text, q.text
    if a == b:
        return 1.0, "same", 0
    longest = max(len(a), len(b))
    if (a.isdigit() or b.isdigit()) and longest < 3:
        return 0.0, "spelling", longest
    if len(a) == 1 or len(b) == 1:
        return (_INITIAL, "initial", 0) if a[0] == b[0] else (0.0, "spelling", longest)
    edits = _osa(a, b)
    best: float = 1.0 - edits / longest
    how: How = "spelling"
    if p.sound == q.sound:
        heard = SOUND_SHARE
    else:
        heard = SOUND_SHARE * (1.0 - _osa(p.sound, q.sound) / max(len(p.sound), len(q.sound)))
    if heard > best:
        best, how = heard, "sound"
    if best < CONSONANTS:
        if a in words.DIMINUTIVES and b in words.DIMINUTIVES and words.DIMINUTIVES[a] & words.DIMINUTIVES[b]:
            return DIMINUTIVE, "diminutive", 0
        if abjad:
            c, d = names.skeleton(a), names.skeleton(b)
            missing = _osa(c, d)  # vowels that a script does not write are no edits
            unwritten = CONSONANTS * (1.0 - missing / max(len(c), len(d)))
            if unwritten > best:
                return unwritten, "consonants", missing
    return best, how, edits


def align(a: Name, b: Name) -> Alignment:
    """The best links, greedily from the most alike; then initials, run-together words and acronyms."""
    links, left, right = _same(a.parts, b.parts)
    abjad = a.abjad != b.abjad
    if left and right:
        left, right = _alike(links, left, right, CERTAIN_MIN, abjad=abjad)
    if left and right and len(left) + len(right) > 2:
        left, right = _run_together(links, left, right)
    if left and right:
        left, right = _alike(links, left, right, LINK_MIN, abjad=abjad)
    return Alignment(tuple(links), tuple(left), tuple(right))


def _same(a: tuple[Part, ...], b: tuple[Part, ...]) -> tuple[list[Link], list[Part], list[Part]]:
    links: list[Link] = []
    left: list[Part] = []
    right = list(b)
    texts = [p.text for p in right]
    for p in a:
        if p.text in texts:
            at = texts.index(p.text)
            del texts[at]
            links.append(Link((p,), (right.pop(at),), "same", 1.0, 0))
        else:
            left.append(p)
    return links, left, right


def _alike(
    links: list[Link], left: list[Part], right: list[Part], least: float, *, abjad: bool
) -> tuple[list[Part], list[Part]]:
    """Links what is alike; a tie goes to the alphabet, so that both directions agree."""
    found: list[tuple[float, str, str, int, int, How, int]] = []
    for i, p in enumerate(left):
        for j, q in enumerate(right):
            if (p.role == "title") != (q.role == "title"):
                continue
            similarity, how, edits = compare(p, q, abjad=abjad)
            if similarity >= least:
                low, high = (p.text, q.text) if p.text < q.text else (q.text, p.text)
                found.append((-similarity, low, high, i, j, how, edits))
    found.sort()
    used_left: set[int] = set()
    used_right: set[int] = set()
    for minus, _, _, i, j, how, edits in found:
        if i not in used_left and j not in used_right:
            used_left.add(i)
            used_right.add(j)
            links.append(Link((left[i],), (right[j],), how, -minus, edits))
    return (
        [p for i, p in enumerate(left) if i not in used_left],
        [q for j, q in enumerate(right) if j not in used_right],
    )


def _run_together(links: list[Link], left: list[Part], right: list[Part]) -> tuple[list[Part], list[Part]]:
    """Words written as one (`Goodwill`, `Good Will`) and initials written as one (`JC`, `Jean-Claude`)."""
    if len(right) > 1:
        left, right = _one_for_two(links, left, right, mirrored=False)
    if left and right and len(left) > 1:
        right, left = _one_for_two(links, right, left, mirrored=True)
    return left, right


def _one_for_two(
    links: list[Link], ones: list[Part], many: list[Part], *, mirrored: bool
) -> tuple[list[Part], list[Part]]:
    kept: list[Part] = []
    for one in ones:
        best: tuple[float, How, int, int, int] | None = None
        for at in range(len(many) - 1):
            for end in range(at + 2, min(len(many), at + len(one.text)) + 1):
                run = many[at:end]
                if len(one.text) == len(run) and one.text == "".join(p.text[0] for p in run):
                    found: tuple[float, How, int, int, int] = (_INITIAL, "initials", 0, at, end)
                elif end == at + 2:
                    text = run[0].text + run[1].text
                    edits = _osa(one.text, text)
                    found = (
                        _JOINED * (1.0 - edits / max(len(one.text), len(text))),
                        "joined",
                        edits,
                        at,
                        end,
                    )
                else:
                    continue
                if found[0] >= _JOIN_MIN and (best is None or found[0] > best[0]):
                    best = found
        if best is None:
            kept.append(one)
            continue
        similarity, how, edits, at, end = best
        run_parts = tuple(many[at:end])
        many = many[:at] + many[end:]
        left, right = (run_parts, (one,)) if mirrored else ((one,), run_parts)
        links.append(Link(left, right, how, similarity, edits))
    return kept, many
