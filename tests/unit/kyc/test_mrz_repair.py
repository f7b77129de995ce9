"""A misread character is put right where that is proven, shown as doubt where not, never silently wrong."""

from __future__ import annotations

import random
import string
from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from allod.clock import ManualClock
from allod.kyc import mrz
from allod.kyc.mrz_layout import ALPHABET, LAYOUTS, TD3, Layout, check_digit, residues
from allod.kyc.mrz_repair import CONFUSIONS
from allod.kyc.mrz_write import write
from allod.kyc.states import ISSUERS, NATIONALITIES

CLOCK = ManualClock(1_780_000_000_000_000)  # 2026-05-28
FIRST = {"TD1": "ACI", "TD2": "ACI", "TD3": "P", "MRV-A": "V", "MRV-B": "V"}
PERSON = {
    "document_type": "P", "issuer": "UTO", "name": "ERIKSSON<<ANNA", "number": "L898902C3",
    "nationality": "UTO", "birth_date": "740812", "sex": "F", "expiry_date": "300415",
}  # fmt: skip
ALNUM = string.digits + string.ascii_uppercase


def some_parts(rng: random.Random, layout: Layout) -> dict[str, str]:
    def word(low: int, high: int, letters: str = string.ascii_uppercase) -> str:
        return "".join(rng.choices(letters, k=rng.randint(low, high)))

    overflows = layout.name in ("TD1", "TD2") and rng.random() < 0.3
    return {
        "document_type": rng.choice(FIRST[layout.name]) + rng.choice(["<", "<", "D", "O", "S"]),
        "issuer": rng.choice(sorted(ISSUERS)),
        "name": word(2, 9) + rng.choice(["", "<" + word(2, 5)]) + "<<" + word(1, 6),
        "number": word(11, 12, ALNUM) if overflows else word(6, 9, ALNUM),
        "nationality": rng.choice(sorted(NATIONALITIES)),
        "birth_date": f"{rng.randrange(100):02}{rng.randint(1, 12):02}{rng.randint(1, 28):02}",
        "sex": rng.choice("MF<"),
        "expiry_date": f"{rng.randint(16, 36)}{rng.randint(1, 12):02}{rng.randint(1, 28):02}",
        "optional": "" if overflows or rng.random() < 0.4 else word(3, 7, ALNUM),
        "optional_2": "" if rng.random() < 0.5 else word(3, 10, ALNUM),
    }


def keeps_every_rule(layout: Layout, lines: tuple[str, ...]) -> bool:
    """By the writer, not by the reader: alphabets, codes, and the digits a writer would have put there."""
    parts: dict[str, str] = {}
    for unit in layout.units:
        for slot in unit.slots:
            text = lines[slot.line][slot.start : slot.end]
            parts[slot.name] = text
            if any(c not in allowed for c, allowed in zip(text, slot.alphabets, strict=True)):
                return False
    if not obeys_lists(parts):
        return False
    expected = write(layout, without_overflow(parts))
    # An empty optional part may state 0 or a filler as its digit, and the writer knows one of them.
    return expected == lines


def without_overflow(parts: Mapping[str, str]) -> dict[str, str]:
    if parts["number_check"] != "<":
        return dict(parts)
    rest, _, remains = parts["optional"].partition("<")
    return dict(parts) | {"number": parts["number"] + rest[:-1], "optional": remains}


def obeys_lists(parts: Mapping[str, str]) -> bool:
    name = parts["name"].rstrip("<")
    halves = name.split("<<")
    named = len(halves) <= 2 and all(p and "" not in p.split("<") for p in halves) and "<<<" not in name
    return (
        parts["issuer"].rstrip("<") in ISSUERS and parts["nationality"].rstrip("<") in NATIONALITIES and named
    )


def values(found: mrz.Mrz) -> dict[str, str]:
    return {f.name: f.value for f in found.fields}


def never_silently_wrong(layout: Layout, lines: tuple[str, ...], place: int, other: str) -> str:
    """Misreads one character; returns what became of it."""
    truth = values(mrz.read(lines, CLOCK))
    line, column = divmod(place, layout.length)
    misread = (*lines[:line], lines[line][:column] + other + lines[line][column + 1 :], *lines[line + 1 :])
    found = mrz.read(misread, CLOCK)
    wrong = [
        f for f in found.fields if f.status in ("valid", "repaired") and f.value != truth.get(f.name, "")
    ]
    if wrong:
        assert keeps_every_rule(layout, misread), (misread, wrong)
        assert all(f.status == "valid" for f in wrong), (misread, wrong)  # at least it claims no repair
        return "invisible"
    if values(found) == truth and found.status == "repaired":
        return "repaired"
    return "flagged" if found.status != "valid" else "harmless"


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda one: one.name)
def test_every_confusion_in_every_place(layout: Layout) -> None:
    rng = random.Random(layout.name)
    became = {"repaired": 0, "flagged": 0, "invisible": 0, "harmless": 0}
    for _ in range(2):
        lines = write(layout, some_parts(rng, layout))
        assert mrz.read(lines, CLOCK).status == "valid", lines
        for place in range(layout.lines * layout.length):
            for other in CONFUSIONS["".join(lines)[place]]:
                became[never_silently_wrong(layout, lines, place, other)] += 1
    assert became["repaired"] > 50
    assert became["flagged"] > 50


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(LAYOUTS), st.integers(0, 2**32), st.data())
def test_any_confusion_in_any_zone(layout: Layout, seed: int, data: st.DataObject) -> None:
    lines = write(layout, some_parts(random.Random(seed), layout))
    place = data.draw(st.integers(0, layout.lines * layout.length - 1))
    other = data.draw(st.sampled_from(CONFUSIONS["".join(lines)[place]] or "?"))
    never_silently_wrong(layout, lines, place, other)


def test_what_check_digits_cannot_tell_apart_is_exactly_what_is_documented() -> None:
    for one in ALPHABET:
        for other in ALPHABET:
            blind = all(check_digit("A" * i + one) == check_digit("A" * i + other) for i in range(3))
            assert blind == any(one in group and other in group for group in residues())
    pairs = {a + b for group in residues() for a in group for b in group if a < b and b in CONFUSIONS[a]}
    assert pairs == {"6G", "1L", "4Y", "0U", "0A", "1V", "<K", "8S", "FP"}


def test_a_zero_in_poland_is_seen() -> None:
    lines = write(TD3, PERSON | {"issuer": "POL", "nationality": "POL"})
    found = mrz.read((lines[0], lines[1].replace("POL", "P0L")), CLOCK)
    assert all(check.holds for check in found.checks)  # no digit covers it
    nationality = found.field("nationality")
    assert (nationality.status, nationality.value, nationality.raw) == ("repaired", "POL", "P0L")
    unclear = mrz.read((lines[0], lines[1].replace("POL", "P01")), CLOCK).field("nationality")
    assert unclear.value != "P01"


def test_two_candidates_are_a_doubt_and_both_are_shown() -> None:
    lines = write(TD3, PERSON)
    number = mrz.read((lines[0], "L8989O2C3" + lines[1][9:]), CLOCK).field("number")
    assert number.status == "doubtful"
    assert number.value == ""
    assert "L898902C3" in number.candidates


def test_fillers_read_as_letters_behind_a_name_are_fillers() -> None:
    lines = write(TD3, PERSON)
    name = mrz.read((lines[0][:30] + "KK<CLE" + lines[0][36:], lines[1]), CLOCK)
    assert (name.field("given_names").status, name.field("given_names").value) == ("repaired", "ANNA")


def test_an_unreadable_place_is_found_by_its_check_digit() -> None:
    lines = write(TD3, PERSON)
    found = mrz.read((lines[0], lines[1][:14] + "?" + lines[1][15:]), CLOCK).field("birth_date")
    assert (found.status, found.value) == ("repaired", "1974-08-12")
