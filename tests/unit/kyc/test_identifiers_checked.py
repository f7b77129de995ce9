"""Published samples are valid, one wrong digit is not, and a good form proves no existence."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from allod.errors import TooLarge, Unprocessable, Usage
from allod.kyc.identifiers import KINDS, Kind, check, recognise

# Samples that standards, registers and python-stdnum's own texts publish.
GOOD: list[tuple[Kind, str, str, str]] = [
    ("iban", "DE89 3704 0044 0532 0130 00", "", "DE89370400440532013000"),
    ("iban", "gr16 0110 1250 0000 0001 2300 695", "GR", "GR1601101250000000012300695"),
    ("bic", "cobadeff", "", "COBADEFF"),
    ("lei", "5299 00T8BM49AURSDO55", "", "529900T8BM49AURSDO55"),
    ("vat", "DE 136,695 976", "", "DE136695976"),
    ("vat", "136695976", "DE", "DE136695976"),
    ("vat", "EL 094259216", "EL", "EL094259216"),
    ("person", "44051401359", "PL", "44051401359"),
    ("person", "85.07.30-033 28", "BE", "85073003328"),
    ("person", "RSSMRA85T10A562S", "it", "RSSMRA85T10A562S"),
    ("company", "552 008 443", "FR", "552008443"),
    ("company", "Berlin HRB 11223 B", "DE", "Berlin (Charlottenburg) HRB 11223 B"),
]


@pytest.mark.parametrize(("kind", "text", "country", "normalised"), GOOD)
def test_a_good_number_is_valid_and_says_what_that_does_not_prove(
    kind: Kind, text: str, country: str, normalised: str
) -> None:
    found = check(kind, text, country)
    assert (found.valid, found.normalised) == (True, normalised)
    assert "does not follow" in found.reason or "only its form" in found.reason
    assert found in recognise(text, found.country) or kind == "lei"


@pytest.mark.parametrize(("kind", "text", "country", "normalised"), GOOD)
def test_one_other_digit_is_noticed_where_there_is_a_check_digit(
    kind: Kind, text: str, country: str, normalised: str
) -> None:
    if "only its form" in check(kind, text, country).reason:
        return
    for i in [n for n, c in enumerate(normalised) if c.isdigit()][-3:]:
        changed = normalised[:i] + str((int(normalised[i]) + 1) % 10) + normalised[i + 1 :]
        assert not check(kind, changed, country).valid, changed


def test_a_number_tells_birth_and_sex_and_an_iban_its_bank() -> None:
    assert check("person", "44051401359", "PL").says == {"birth date": "1944-05-14", "sex": "M"}
    assert check("iban", "DE89370400440532013000").says["bank"] == "Commerzbank"


def test_an_account_of_another_state_is_not_of_this_one() -> None:
    found = check("iban", "FR1420041010050500013M02606", "DE")
    assert (found.valid, found.country) == (False, "FR")


def test_what_a_string_could_be_is_all_that_it_could_be() -> None:
    kinds = {(found.kind, found.country) for found in recognise("404833048")}
    assert {("company", "FR"), ("vat", "DE")} <= kinds
    assert recognise("not an identifier") == ()


def test_a_national_number_needs_its_state_and_a_state_its_scheme() -> None:
    with pytest.raises(Usage) as missing:
        check("person", "44051401359")
    assert missing.value.code == "kyc.country"
    with pytest.raises(Unprocessable) as unknown:
        check("company", "12345", "MT")
    assert unknown.value.code == "kyc.no-scheme"
    with pytest.raises(TooLarge):
        check("iban", "1" * 1_000)


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=40))
def test_no_text_breaks_it(text: str) -> None:
    for found in recognise(text):
        assert found.valid
        assert found.normalised
    for kind in KINDS:
        check(kind, text, "PL")
