"""Names: what must not change a comparison, and what has to be recognised."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from allod.kyc.screening import names, score
from allod.kyc.screening.align import align
from allod.kyc.screening.entity import Kind, Span, span, years
from allod.kyc.screening.names import parse

# Letters of the scripts that customers of a European bank are written in, and what stands between them.
LETTERS = st.characters(min_codepoint=0x20, max_codepoint=0x9FFF, exclude_categories=["Cs", "Cn"])
ANY_NAME = st.text(LETTERS, max_size=60)
WORD = st.text(st.sampled_from("abcdefghijklmnopqrstuvwxyzäöüéèçñşğłžабвгдежзик"), min_size=1, max_size=12)
NAME = st.lists(WORD, min_size=1, max_size=5).map(" ".join)
KINDS: list[Kind] = ["person", "organisation", "unknown"]


@given(ANY_NAME, ANY_NAME, st.sampled_from(KINDS))
def test_a_score_is_the_same_in_both_directions(a: str, b: str, kind: Kind) -> None:
    assert score.score(parse(a), parse(b), kind) == pytest.approx(score.score(parse(b), parse(a), kind))


@given(NAME, st.sampled_from(KINDS))
def test_no_name_is_likelier_than_the_name_itself(name: str, kind: Kind) -> None:
    itself = score.score(parse(name), parse(name), kind)
    assert itself == pytest.approx(score.logistic(score.SCHEME.base))
    assert score.score(parse(name), parse(name + " x"), kind) <= itself


@given(st.lists(WORD.filter(lambda w: len(w) > 1), min_size=1, max_size=5), st.randoms(use_true_random=False))
def test_the_order_of_parts_does_not_count(parts: list[str], random: object) -> None:
    mixed = list(parts)
    random.shuffle(mixed)  # type: ignore[attr-defined]
    a, b = parse(" ".join(parts)), parse(" ".join(mixed))
    if sorted(p.text for p in a.parts) == sorted(p.text for p in b.parts):  # no phrase of a legal form
        assert score.score(a, b) == pytest.approx(score.logistic(score.SCHEME.base))


@given(ANY_NAME)
def test_folding_twice_is_folding_once(name: str) -> None:
    assert names.fold(names.fold(name)) == names.fold(name)


@given(ANY_NAME, ANY_NAME)
def test_every_part_is_in_one_link_or_one_rest(a: str, b: str) -> None:
    left, right = parse(a), parse(b)
    found = align(left, right)
    linked = [p.text for link in found.links for p in link.left] + [p.text for p in found.left]
    assert sorted(linked) == sorted(p.text for p in left.parts)
    linked = [p.text for link in found.links for p in link.right] + [p.text for p in found.right]
    assert sorted(linked) == sorted(p.text for p in right.parts)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Владимир Путин", "Vladimir Putin"),
        ("Κυριάκος Μητσοτάκης", "Kyriakos Mitsotakis"),
        ("Muammar Gaddafi", "Moammar Qaddafi"),
        ("Usama bin Ladin", "BIN LADEN, Osama"),
        ("Jean-Claude Juncker", "J.-C. Juncker"),
        ("Dr. Bashar al-Assad", "Bachar el Assad"),
        ("Recep Tayyip Erdoğan", "RECEP TAYYIP ERDOGAN"),
        ("Robert Mugabe", "Bob Mugabe"),
        ("Igor Sechin", "Ig0r Sech1n"),
        ("محمد حسن", "Mohammed Hassan"),
    ],
)
def test_the_same_person_in_other_letters_is_found(one: str, other: str) -> None:
    assert score.score(parse(one), parse(other), "person") > 0.6


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Goodwill Company", "Good Will Co."),
        ("Siemens Aktiengesellschaft", "SiemensAG"),
        ("ООО «Газпром»", "Gazprom LLC"),
        ("H&M Hennes & Mauritz AB", "H and M Hennes and Mauritz AB"),
        ("Faberlic Sp. z o.o.", "FABERLIC"),
        ("1st International Bank", "First Int'l Bank"),
    ],
)
def test_the_same_company_in_another_style_is_found(one: str, other: str) -> None:
    assert score.score(parse(one), parse(other), "organisation") > 0.85


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Heinrich Fischer", "ALENEZI, Mohammad H A F"),  # nothing but initials agrees
        ("Heinrich Fischer", "La Señora"),
        ("Maria Fischer", "Maria III"),
        ("Andrei Navalny", "Alexei Navalny"),
        ("Boris Netanyahu", "Benjamin Netanyahu"),
        ("Anna Schmidt", "Peter Schmidt"),
    ],
)
def test_somebody_else_is_not_found(one: str, other: str) -> None:
    assert score.score(parse(one), parse(other), "person") < 0.5


def test_nothing_to_compare_matches_nothing() -> None:
    assert score.score(parse("…"), parse("…")) < 0.01
    assert parse("").parts == ()


def test_a_long_text_is_bounded() -> None:
    assert len(parse("abc def " * 100_000).parts) <= names.PARTS_MAX


@pytest.mark.parametrize(
    ("asked", "listed", "effect"),
    [
        ("1951-06-19", Span("1951-06-19", "1951-06-19"), score.BORN_SAME_DAY),
        ("1951-06-19", Span("1951-01-01", "1951-12-31"), score.BORN_SAME_YEAR),
        ("1951", Span("1951-06-19", "1951-06-19"), score.BORN_SAME_YEAR),
        ("1953", Span("1951-01-01", "1951-12-31", approximate=True), score.BORN_SAME_YEAR),
        ("1975-03-04", Span("1975-04-03", "1975-04-03"), score.BORN_NEAR),  # day and month swapped
        ("1950", Span("1951-06-19", "1951-06-19"), score.BORN_NEAR),
        ("1980-01-01", Span("1951-06-19", "1951-06-19"), score.BORN_OTHER),
        ("1980", Span("1960-01-01", "1965-12-31"), score.BORN_OTHER),
    ],
)
def test_birth_dates_count_for_and_against(asked: str, listed: Span, effect: float) -> None:
    known = span(asked)
    assert known is not None
    factor = score.birth(known, [listed])
    assert factor is not None
    assert factor.effect == effect


def test_what_is_no_date_is_none() -> None:
    assert span("1951-13") is None
    assert span("0000") is None
    assert span("about 1951") is None
    assert years("1965", "1960") is None


def test_the_factors_shown_are_the_whole_score() -> None:
    found = score.compare(parse("Aiman Zawahri"), parse("AL-ZAWAHIRI, Ayman"), "person")
    assert found.score == pytest.approx(score.logistic(sum(f.effect for f in found.factors)), abs=1e-3)
    assert {link.how for link in found.links} == {"sound", "spelling"}
