"""Which readings of a machine-readable zone are possible, given what was read.

Guarantees: a reading differs from what was read only by the declared confusions and keeps every alphabet,
code list, calendar and check digit. With one misread character the true reading is always among those
returned, so a repair that is the only reading is no choice. With several it can be missing: then, and only
where another happens to fit, a wrong reading can stand alone (how often: docs/identity-documents.md).

How: a character that may not stand in its place has to be replaced. One that may stand is replaced only where
its unit does not hold without, or the composite digit does not, and then one in a unit.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from datetime import date

import msgspec

from allod.kyc.mrz_layout import ALPHABET, FILLER, Layout, Slot, Unit, value

UNREAD = "?"  # a position where something was seen that is no character of the alphabet: it may be any
_TAIL_FILLERS = 5  # after so many nothing but fillers follows: a name has at most two in a row, and that once
_FORCED_MAX = 2_000  # readings of one unit by replacing what may not stand there; beyond, it is unreadable
_FORCED_WIDENED_MAX = 64  # up to so many of these are each tried with one more replacement

# Pairs that engines take for each other in OCR-B, both ways. Adding a pair makes no repair wrong, it makes
# doubts of some.
_PAIRS = """
0O 0D 0Q 0U 0A 0C OD OQ OU OC DQ  1I 1L 1T 1V 17 1J IL IT IJ  2Z 27  3B 38 35  4A 4Y  5S 56  6G 6B 68
7T 7Y 7Z  8B 8S 89 8R  9G 9Q  CG CE EF BE BR PR PF  UV VY VW XY XK NH MN MH KR KH  <K <C <L <E <S <X <Z
    """.split()  # noqa: SIM905 - a table is read in rows
CONFUSIONS: dict[str, str] = {
    c: "".join(sorted({p.replace(c, "", 1) for p in _PAIRS if c in p})) for c in ALPHABET
} | {UNREAD: ALPHABET}

Reading = tuple[str, ...]  # the texts of a unit's slots


class Solved(msgspec.Struct, frozen=True):
    """What one unit can say. No readings: nothing possible was found."""

    unit: Unit
    as_read: Reading
    readings: tuple[Reading, ...]


class Solution(msgspec.Struct, frozen=True):
    """All units; `composite` is None where the form has none or it cannot be computed."""

    units: tuple[Solved, ...]
    composite: bool | None


def solve(layout: Layout, lines: Sequence[str], today: date) -> Solution:
    """Every reading of `lines` (as many and as long as the layout says) that the rules allow."""
    pools = [_Pool(layout, unit, lines, today) for unit in layout.units]
    if not layout.composite:
        return Solution(tuple(p.solved(p.best) for p in pools), None)
    covered = [p for p in pools if p.in_composite]
    if not all(p.best for p in covered):
        return Solution(tuple(p.solved(p.best) for p in pools), None)
    found = _fitting(covered, [p.best for p in covered])
    if found is None:
        found = _explained(covered)
    if found is None:
        return Solution(tuple(p.solved(p.best) for p in pools), composite=False)
    kept = dict(zip(map(id, covered), found, strict=True))
    return Solution(tuple(p.solved(kept.get(id(p), p.best)) for p in pools), composite=True)


def unseen(layout: Layout, solved: Solved, today: date) -> Iterator[tuple[Slot, int, str]]:
    """Slot, offset and character: what could stand there instead without any rule noticing."""
    reading = solved.readings[0]
    weights = _weights(layout)
    for n, slot in enumerate(solved.unit.slots):
        for i, c in enumerate(reading[n]):
            for other in CONFUSIONS[c]:
                if other not in slot.alphabets[i]:
                    continue
                weighed = weights.get((slot.line, slot.start + i), 0)
                if (value(other) - value(c)) * weighed % 10:
                    continue
                changed = (*reading[:n], _with(reading[n], i, other), *reading[n + 1 :])
                if solved.unit.rule(changed, today):
                    yield slot, i, other


class _Pool:
    """The readings of one unit: without replacing what may stand, and with one such replacement."""

    def __init__(self, layout: Layout, unit: Unit, lines: Sequence[str], today: date) -> None:
        self._unit = unit
        self._today = today
        self._as_read = tuple(lines[s.line][s.start : s.end] for s in unit.slots)
        read = zip(unit.slots, self._as_read, strict=True)
        self._alphabets = [a for slot, text in read for a in _narrowed(slot, text)]
        weights = _weights(layout)
        places = [(s.line, i) for s in unit.slots for i in range(s.start, s.end)]
        self._weights = [weights.get(place, 0) for place in places]
        self.in_composite = any(self._weights)
        text = "".join(self._as_read)
        self._illegal = [i for i, c in enumerate(text) if c not in self._alphabets[i]]
        self._forced = list(self._replaced(text))
        self.plain = [r for t in self._forced if self._holds(r := self._cut(t))]
        self.best = self.plain or self.widened

    @property
    def widened(self) -> list[Reading]:
        if len(self._forced) > _FORCED_WIDENED_MAX:
            return []
        return [
            reading
            for text in self._forced
            for i, c in enumerate(text)
            if i not in self._illegal
            for other in CONFUSIONS[c]
            if other in self._alphabets[i] and self._holds(reading := self._cut(_with(text, i, other)))
        ]

    def weigh(self, reading: Reading) -> int:
        """What a reading adds to the composite sum, modulo 10. The sum over all units is 0 where it holds."""
        return sum(value(c) * w for c, w in zip("".join(reading), self._weights, strict=True)) % 10

    def solved(self, readings: Sequence[Reading]) -> Solved:
        return Solved(self._unit, self._as_read, tuple(dict.fromkeys(readings)))

    def _replaced(self, text: str) -> Iterator[str]:
        choices = [[c for c in CONFUSIONS.get(text[i], "") if c in self._alphabets[i]] for i in self._illegal]
        count = 1
        for choice in choices:
            count *= len(choice)
        if not 0 < count <= _FORCED_MAX:
            return
        for chosen in itertools.product(*choices):
            changed = list(text)
            for i, c in zip(self._illegal, chosen, strict=True):
                changed[i] = c
            yield "".join(changed)

    def _cut(self, text: str) -> Reading:
        lengths = [len(t) for t in self._as_read]
        ends = list(itertools.accumulate(lengths))
        return tuple(text[end - length : end] for end, length in zip(ends, lengths, strict=True))

    def _holds(self, reading: Reading) -> bool:
        return self._unit.rule(reading, self._today)


def _explained(covered: list[_Pool]) -> list[list[Reading]] | None:
    """One more replacement in any one unit that makes the composite digit hold: all the ways, together."""
    together: list[list[Reading]] | None = None
    for n, pool in enumerate(covered):
        if not pool.plain:
            continue  # its readings already carry one
        pools = [p.best for p in covered]
        pools[n] = pool.widened
        found = _fitting(covered, pools)
        if found is not None:
            together = [a + b for a, b in zip(together, found, strict=True)] if together else found
    return together


def _fitting(covered: list[_Pool], readings: list[list[Reading]]) -> list[list[Reading]] | None:
    """Of each unit the readings that are part of some combination for which the composite digit holds."""
    weighed = [[(r, pool.weigh(r)) for r in rs] for pool, rs in zip(covered, readings, strict=True)]
    before = [{0}]
    for rs in weighed:
        before.append({(b + w) % 10 for b in before[-1] for _, w in rs})
    after = [{0}]
    for rs in reversed(weighed):
        after.append({(a + w) % 10 for a in after[-1] for _, w in rs})
    after.reverse()
    found = [
        [r for r, w in rs if any((b + w + a) % 10 == 0 for b in before[n] for a in after[n + 1])]
        for n, rs in enumerate(weighed)
    ]
    return found if all(found) else None


def _weights(layout: Layout) -> dict[tuple[int, int], int]:
    """What a position counts in the composite sum; the composite digit itself counts against it."""
    if not layout.composite:
        return {}
    places = [(line, i) for line, start, end in layout.composite for i in range(start, end)]
    weights = {place: (7, 3, 1)[n % 3] for n, place in enumerate(places)}
    return weights | {layout.composite_at: -1}


def _narrowed(slot: Slot, text: str) -> tuple[str, ...]:
    """A name's alphabets, with nothing but fillers after its end."""
    end = text.find(FILLER * _TAIL_FILLERS) if slot.name == "name" else -1
    if end < 0:
        return slot.alphabets
    return slot.alphabets[:end] + (FILLER,) * (len(slot.alphabets) - end)


def _with(text: str, i: int, c: str) -> str:
    return text[:i] + c + text[i + 1 :]
