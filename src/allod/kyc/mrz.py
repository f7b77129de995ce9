"""Reads the machine-readable zone of passports, identity cards and visas (ICAO Doc 9303: TD1, TD2, TD3, MRV).

Guarantees: every value carries what was read, where, and how far it can be trusted:

    valid      nothing contradicts it. That is no proof: check digits cannot see G/6, L/1, Y/4, U/0 and others
               (`unseen` names them), and no digit covers names, nationality and sex
    repaired   it was misread, and exactly one reading keeps every rule
    doubtful   several readings keep the rules, or none is confirmed; `candidates` has them
    invalid    no reading keeps the rules

Nothing here says "verified": a zone proves that somebody can add.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, date, datetime
from itertools import groupby
from typing import Literal

import msgspec

from allod.clock import Clock
from allod.errors import Unprocessable
from allod.kyc import dates
from allod.kyc.mrz_layout import FILLER, LAYOUTS, Layout, Slot, holds, overflow
from allod.kyc.mrz_repair import Solution, Solved, solve, unseen

Status = Literal["valid", "repaired", "doubtful", "invalid"]
_RANK: dict[Status, int] = {"valid": 0, "repaired": 1, "doubtful": 2, "invalid": 3}
_CANDIDATES_MAX = 8
_OUTSIDE = "no check digit covers it"
_UNEXPLAINED = "the composite check digit contradicts, and no single misreading explains it"


class Field(msgspec.Struct, frozen=True):
    """One value. `line` and `start` to before `end` count from 0; dates are ISO 8601, as far as stated."""

    name: str
    raw: str
    value: str
    line: int
    start: int
    end: int
    status: Status
    reason: str = ""
    candidates: tuple[str, ...] = ()
    unseen: tuple[str, ...] = ()  # "3: 6 could be G": what no rule would notice, by place in `raw` from 1
    backed_by: tuple[str, ...] = ()  # what was held against it beside the alphabets


class Check(msgspec.Struct, frozen=True):
    """One check digit, computed over the zone as it is understood."""

    name: str
    digit: str
    holds: bool


class Mrz(msgspec.Struct, frozen=True):
    """A zone as it is understood; `read` is what came in."""

    format: str
    read: tuple[str, ...]
    lines: tuple[str, ...]
    fields: tuple[Field, ...]
    checks: tuple[Check, ...]
    expired: bool | None  # None where the date is not known to the day

    @property
    def status(self) -> Status:
        return max((f.status for f in self.fields), key=_RANK.__getitem__)

    def field(self, name: str) -> Field:
        return next(f for f in self.fields if f.name == name)


def read(lines: Sequence[str], clock: Clock) -> Mrz:
    """The zone in `lines`: two of 44 or 36 characters, or three of 30; `?` is a place that could not be read.

    Raises Unprocessable `kyc.mrz-shape` for any other shape.
    """
    today = datetime.fromtimestamp(clock.now_us() / 1_000_000, UTC).date()
    lengths = [len(line) for line in lines]
    fitting = [layout for layout in LAYOUTS if lengths == [layout.length] * layout.lines]
    if not fitting:
        raise Unprocessable(
            "kyc.mrz-shape",
            f"{len(lines)} lines of {', '.join(map(str, lengths)) or 'no'} characters are no zone",
            hint="TD3 and MRV-A have 2 lines of 44, TD2 and MRV-B 2 of 36, TD1 3 of 30",
        )
    found = sorted((_understood(layout, tuple(lines), today) for layout in fitting), key=burden)
    best = found[0]
    for rival in found[1:]:
        if burden(rival) == burden(best):
            best = either(best, rival)
    return best


def burden(mrz: Mrz) -> tuple[int, int, int]:
    """How much speaks against an understanding: invalid, doubtful and repaired fields. Less is better."""
    ranks = [f.status for f in mrz.fields]
    return ranks.count("invalid"), ranks.count("doubtful"), ranks.count("repaired")


def either(one: Mrz, other: Mrz) -> Mrz:
    """Two understandings that nothing tells apart: what they disagree on is doubtful."""
    theirs = {f.name: f for f in other.fields}
    merged = []
    for f in one.fields:
        rival = theirs.get(f.name)
        if rival is not None and rival.value != f.value:
            f = msgspec.structs.replace(
                f,
                status="doubtful",
                reason=f"it can also be understood as {other.format}",
                candidates=tuple(dict.fromkeys((f.value, rival.value))),
            )
        merged.append(f)
    return msgspec.structs.replace(one, fields=tuple(merged))


# --- understanding ------------------------------------------------------------------------------------------


def _understood(layout: Layout, lines: tuple[str, ...], today: date) -> Mrz:
    solution = solve(layout, lines, today)
    repaired = [list(line) for line in lines]
    for solved in solution.units:
        if len(solved.readings) == 1:
            for slot, text in zip(solved.unit.slots, solved.readings[0], strict=True):
                repaired[slot.line][slot.start : slot.end] = text
    fields = [f for solved in solution.units for f in _fields(layout, solved, solution, today)]
    final = tuple("".join(line) for line in repaired)
    return Mrz(
        layout.name, lines, final, tuple(fields), tuple(_checks(layout, final)), _expired(fields, today)
    )


def _fields(layout: Layout, solved: Solved, solution: Solution, today: date) -> list[Field]:
    """A unit's fields, without those of its check digits."""
    covered = {(line, i) for line, start, end in layout.composite for i in range(start, end)}
    fields = []
    blind = _blind(layout, solved, today)
    for n, slot in enumerate(solved.unit.slots):
        if slot.name.endswith("_check") and slot.name != "composite_check":
            continue
        in_composite = (slot.line, slot.start) in covered
        own = tuple(b for b in solved.unit.backed_by if b != "check digit" or _has_own_digit(slot, solved))
        backed = own + (("composite digit",) if in_composite and solution.composite else ())
        for name, values in _decoded(slot, n, solved.readings or (solved.as_read,), today).items():
            status, reason = _judged(slot, n, solved, values)
            if solution.composite is False and (in_composite or slot.name == "composite_check"):
                status = "invalid" if slot.name == "composite_check" else "doubtful"
                reason = _UNEXPLAINED
            if status == "repaired" and not _covered(slot, backed):
                reason = f"{reason}; {_OUTSIDE}"
            certain = bool(solved.readings) and len(values) == 1
            fields.append(
                Field(
                    name,
                    solved.as_read[n],
                    values[0] if certain else "",
                    slot.line,
                    slot.start,
                    slot.end,
                    status,
                    reason or _remark(slot, solved.readings[0][n], today, backed),
                    () if certain or not solved.readings else values[:_CANDIDATES_MAX],
                    blind.get(slot.name, ()),
                    backed,
                )
            )
    return fields


def _blind(layout: Layout, solved: Solved, today: date) -> dict[str, tuple[str, ...]]:
    """Slot name to what no rule would notice; nothing where no rule but the alphabet is there to notice."""
    if len(solved.readings) != 1 or not solved.unit.backed_by:
        return {}
    places: dict[str, dict[int, str]] = {}
    for slot, i, other in unseen(layout, solved, today):
        places.setdefault(slot.name, {}).setdefault(i, "")
        places[slot.name][i] += other
    texts = {slot.name: text for slot, text in zip(solved.unit.slots, solved.readings[0], strict=True)}
    return {name: tuple(_runs(texts[name], others)) for name, others in places.items()}


def _runs(text: str, others: dict[int, str]) -> Iterator[str]:
    """Neighbours of whom the same is true are said once."""
    told = [(f"{text[i]} could be {' or '.join(more)}", i) for i, more in sorted(others.items())]
    for (what, _), group in groupby(told, key=lambda t: (t[0], t[1] - told.index(t))):
        at = [i + 1 for _, i in group]
        yield f"{at[0]}: {what}" if len(at) == 1 else f"{at[0]} to {at[-1]}: {what}"


def _judged(slot: Slot, n: int, solved: Solved, values: tuple[str, ...]) -> tuple[Status, str]:
    if not solved.readings:
        return "invalid", _why_invalid(slot, solved, n)
    if len(values) > 1:
        return "doubtful", f"{len(values)} readings keep every rule"
    # What a value rests on: its own text, and that of its check digit, which follows it.
    checked = n + 1 < len(solved.unit.slots) and solved.unit.slots[n + 1].name == slot.name + "_check"
    rests = slice(n, n + 2 if checked else n + 1)
    readings = {r[rests] for r in solved.readings}
    if readings == {solved.as_read[rests]}:
        return "valid", ""
    if len(readings) > 1:
        return "doubtful", "it or its check digit was misread, and more than one correction keeps every rule"
    if next(iter(readings))[0] == solved.as_read[n]:
        return "repaired", "its check digit was misread; no other correction keeps every rule"
    return "repaired", f"read as {solved.as_read[n]}; no other correction keeps every rule"


def _why_invalid(slot: Slot, solved: Solved, n: int) -> str:
    wrong = [f"{c} at {i + 1}" for i, c in enumerate(solved.as_read[n]) if c not in slot.alphabets[i]]
    if wrong:
        return f"{', '.join(wrong)} cannot stand there, and no correction keeps every rule"
    rules = " and ".join(solved.unit.backed_by) or "form"
    return f"the {rules} does not hold, and no correction makes it hold"


def _remark(slot: Slot, text: str, today: date, backed: tuple[str, ...]) -> str:
    """What a reader should know of a value that stands."""
    if slot.name in ("birth_date", "expiry_date"):
        dated = _date(slot.name, text, today)
        if dated.others:
            return f"the zone has no century: {dated.value} or {', '.join(dated.others)}"
        return "" if dated.value else "the zone says that it is unknown"
    return "" if _covered(slot, backed) else _OUTSIDE


def _covered(slot: Slot, backed: tuple[str, ...]) -> bool:
    return "check digit" in backed or "composite digit" in backed or slot.name == "composite_check"


def _has_own_digit(slot: Slot, solved: Solved) -> bool:
    """Optional data beside a document number are covered only where the number runs over into them."""
    return not (slot.name == "optional" and len(solved.unit.slots) == 3 and solved.as_read[1] != FILLER)


def _date(name: str, text: str, today: date) -> dates.Dated:
    return (dates.birth if name == "birth_date" else dates.expiry)(text, today)


def _decoded(
    slot: Slot, n: int, readings: Sequence[tuple[str, ...]], today: date
) -> dict[str, tuple[str, ...]]:
    """Field name to the distinct values of all readings."""
    if slot.name == "name":
        parts = [r[n].rstrip(FILLER).partition(FILLER * 2) for r in readings]
        return {
            "surname": _distinct(p[0].replace(FILLER, " ") for p in parts),
            "given_names": _distinct(p[2].replace(FILLER, " ") for p in parts),
        }
    return {slot.name: _distinct(_value(slot.name, n, r, today) for r in readings)}


def _distinct(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(values))


def _value(name: str, n: int, reading: tuple[str, ...], today: date) -> str:
    text = reading[n]
    overflows = len(reading) == 3 and reading[1] == FILLER
    if name == "number" and overflows:
        text += overflow(reading[2])[0]
    elif name == "optional" and overflows:
        text = overflow(text)[2]
    elif name.endswith("_date"):
        try:
            return _date(name, text, today).value
        except ValueError:
            return ""
    return text.strip(FILLER).replace(FILLER, " ")


def _checks(layout: Layout, lines: tuple[str, ...]) -> list[Check]:
    checks = []
    for unit in layout.units:
        texts = [lines[s.line][s.start : s.end] for s in unit.slots]
        if len(texts) == 2:
            ok = holds(texts[0], texts[1]) or _stated_empty(texts)
            checks.append(Check(unit.slots[0].name, texts[1], ok))
        elif len(texts) == 3 and texts[1] == FILLER:
            rest, digit, _ = overflow(texts[2])
            checks.append(Check("number", digit, holds(texts[0] + rest, digit)))
        elif len(texts) == 3:
            checks.append(Check("number", texts[1], holds(texts[0], texts[1])))
    if layout.composite:
        line, column = layout.composite_at
        over = "".join(lines[n][start:end] for n, start, end in layout.composite)
        checks.append(Check("composite", lines[line][column], holds(over, lines[line][column])))
    return checks


def _stated_empty(texts: Sequence[str]) -> bool:
    return texts[1] == FILLER and not texts[0].strip(FILLER)


def _expired(fields: Sequence[Field], today: date) -> bool | None:
    value = next(f.value for f in fields if f.name == "expiry_date")
    return date.fromisoformat(value) < today if len(value) == 10 else None
