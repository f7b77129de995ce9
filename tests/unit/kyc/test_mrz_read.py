"""The standard's own samples, dates against a clock, and zones found in what recognition makes of a page."""

from __future__ import annotations

import pycountry
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from allod.clock import ManualClock
from allod.errors import Unprocessable
from allod.kyc import mrz, states
from allod.kyc.mrz_find import find
from allod.kyc.mrz_layout import TD1, TD3
from allod.kyc.mrz_write import transliterated, write

CLOCK = ManualClock(1_780_000_000_000_000)  # 2026-05-28
# The samples of Doc 9303 parts 4, 5, 6 and 7.
TD3_SAMPLE = ("P<UTOERIKSSON<<ANNA<MARIA<<<<<<<<<<<<<<<<<<<", "L898902C36UTO7408122F1204159ZE184226B<<<<<10")
TD2_SAMPLE = ("I<UTOERIKSSON<<ANNA<MARIA<<<<<<<<<<<", "D231458907UTO7408122F1204159<<<<<<<6")
TD1_SAMPLE = (
    "I<UTOD231458907<<<<<<<<<<<<<<<",
    "7408122F1204159UTO<<<<<<<<<<<6",
    "ERIKSSON<<ANNA<MARIA<<<<<<<<<<",
)
VISA_SAMPLE = ("V<UTOERIKSSON<<ANNA<MARIA<<<<<<<<<<<<<<<<<<<", "L8988901C4XXX4009078F96121096ZE184226B<<<<<<")


@pytest.mark.parametrize(
    ("lines", "form", "number"),
    [
        (TD3_SAMPLE, "TD3", "L898902C3"),
        (TD2_SAMPLE, "TD2", "D23145890"),
        (TD1_SAMPLE, "TD1", "D23145890"),
        (VISA_SAMPLE, "MRV-A", "L8988901C"),
    ],
)
def test_the_samples_of_the_standard(lines: tuple[str, ...], form: str, number: str) -> None:
    found = mrz.read(lines, CLOCK)
    assert (found.format, found.status, found.lines) == (form, "valid", lines)
    assert found.field("surname").value == "ERIKSSON"
    assert found.field("given_names").value == "ANNA MARIA"
    assert found.field("number").value == number
    assert found.expired is True
    assert all(check.holds for check in found.checks)


def test_no_value_is_ever_called_verified_and_what_arithmetic_cannot_see_is_said() -> None:
    found = mrz.read(TD3_SAMPLE, CLOCK)
    assert "1: L could be 1" in found.field("number").unseen
    assert "no check digit" in found.field("nationality").reason
    assert "no check digit" in found.field("sex").reason
    assert "no check digit" in found.field("surname").reason


def test_a_long_document_number_goes_on_in_the_optional_data() -> None:
    lines = write(TD1, {"document_type": "I", "issuer": "BEL", "number": "592012345602", "nationality": "BEL",
                        "birth_date": "900115", "expiry_date": "310115", "name": "PEETERS<<JAN"})  # fmt: skip
    assert lines[0][14] == "<"
    found = mrz.read(lines, CLOCK)
    assert (found.status, found.field("number").value) == ("valid", "592012345602")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("260528", "2026-05-28"),
        ("260529", "1926-05-29"),
        ("7408<<", "1974-08"),
        ("74<<<<", "1974"),
        ("<<<<<<", ""),
    ],
)
def test_birth_is_not_after_today_and_may_be_known_in_part(text: str, value: str) -> None:
    parts = {"document_type": "P", "issuer": "UTO", "nationality": "UTO", "number": "X1", "name": "A<<B"}
    found = mrz.read(write(TD3, parts | {"birth_date": text, "expiry_date": "300101"}), CLOCK).field(
        "birth_date"
    )
    assert (found.value, found.status) == (value, "valid")


@pytest.mark.parametrize("text", ["740230", "741301", "740832", "010229"])
def test_a_day_that_never_was_is_no_date_although_its_digit_holds(text: str) -> None:
    parts = {"document_type": "P", "issuer": "UTO", "nationality": "UTO", "number": "X1", "name": "A<<B"}
    found = mrz.read(write(TD3, parts | {"birth_date": text, "expiry_date": "300101"}), CLOCK)
    assert found.field("birth_date").status != "valid"
    assert found.status != "valid"


def test_the_other_century_of_an_old_person_is_said() -> None:
    parts = {"document_type": "P", "issuer": "UTO", "nationality": "UTO", "number": "X1", "name": "A<<B"}
    found = mrz.read(write(TD3, parts | {"birth_date": "200101", "expiry_date": "300101"}), CLOCK)
    assert found.field("birth_date").value == "2020-01-01"
    assert "1920-01-01" in found.field("birth_date").reason
    assert found.expired is False


def test_every_country_of_iso_3166_is_known_and_no_other_word() -> None:
    iso = {country.alpha_3 for country in pycountry.countries}
    assert iso <= states.ISSUERS
    assert len(states.ISSUERS - iso) == 23
    assert not states.coded("D<X", states.ISSUERS)
    assert states.coded("D<<", states.ISSUERS)


def test_names_are_written_as_the_standard_writes_them() -> None:
    assert transliterated("Åsa-Lena d'Østergård") == "AASA<LENA<DOESTERGAARD"
    assert transliterated("Müller-Weiß") == "MUELLER<WEISS"
    assert transliterated("Żółć") == "ZOLC"


@pytest.mark.parametrize("lines", [("P<UTO",), ("A" * 44,), ("A" * 44, "B" * 43), ()])
def test_another_shape_is_refused(lines: tuple[str, ...]) -> None:
    with pytest.raises(Unprocessable) as refused:
        mrz.read(lines, CLOCK)
    assert refused.value.code == "kyc.mrz-shape"


PAGE = """# UTOPIA PASSPORT
Surname / Nom
ERIKSSON
This passport is valid for all countries of the known world and beyond it.

{zone}
page 3 of 32"""


@pytest.mark.parametrize(
    "zone",
    [
        "\n".join(TD3_SAMPLE),
        "\n".join(TD3_SAMPLE).lower(),
        "\n".join(TD3_SAMPLE).replace("<<", "«").replace("<", "‹"),
        "\n\n".join(TD3_SAMPLE).replace("<<<<<", "<< < <<"),
        "\\" + TD3_SAMPLE[0] + "\n" + TD3_SAMPLE[1] + " .",
        "\n".join(TD3_SAMPLE).replace("<", "&lt;"),
    ],
)
def test_a_zone_is_found_on_a_page(zone: str) -> None:
    found = find(PAGE.format(zone=zone), CLOCK)
    assert found is not None
    assert (found.format, found.status, found.lines) == ("TD3", "valid", TD3_SAMPLE)


def test_all_forms_are_found() -> None:
    for sample in (TD1_SAMPLE, TD2_SAMPLE, TD3_SAMPLE, VISA_SAMPLE):
        found = find(PAGE.format(zone="\n".join(sample)), CLOCK)
        assert found is not None
        assert found.lines == sample


def test_lost_fillers_are_added_but_the_name_stays_doubtful() -> None:
    short = (TD3_SAMPLE[0][:-3], TD3_SAMPLE[1].replace("<<<<<", "<<<"))
    found = find(PAGE.format(zone="\n".join(short)), CLOCK)
    assert found is not None
    assert found.lines == TD3_SAMPLE
    assert found.field("number").status == "repaired"
    assert found.field("surname").status == "doubtful"


@pytest.mark.parametrize(
    "text", ["", "x", PAGE.format(zone=""), "A" * 44 + "\n" + "B" * 44, ("<" * 44 + "\n") * 3]
)
def test_where_there_is_no_zone_none_is_found(text: str) -> None:
    assert find(text, CLOCK) is None


@settings(max_examples=100, deadline=None)
@given(st.data(), st.sampled_from([TD1_SAMPLE, TD2_SAMPLE, TD3_SAMPLE, VISA_SAMPLE]))
def test_whatever_stands_in_the_lines_is_judged_and_breaks_nothing(
    data: st.DataObject, sample: tuple[str, ...]
) -> None:
    lines = []
    for line in sample:
        at = data.draw(st.integers(0, len(line) - 1))
        noise = data.draw(st.text(alphabet="?<0OK٣é \x00", max_size=len(line) - at))
        lines.append(line[:at] + noise + line[at + len(noise) :])
    found = mrz.read(lines, CLOCK)
    assert tuple(found.read) == tuple(lines)
    find("\n".join(lines), CLOCK)
