"""The lists: real copies counted by other means, a specimen of the EU's format, and files that mean harm."""

from __future__ import annotations

import csv
import io
import re
import tracemalloc
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import BinaryIO, cast

import pytest

from allod.errors import Unprocessable
from allod.kyc.screening import countries
from allod.kyc.screening.entity import Entity, Identifier, ListedName, Span
from allod.kyc.screening.lists import detect, eu, un
from allod.kyc.screening.lists.xml import Reader

REAL = Path(__file__).parents[4] / "shared" / "data" / "lists"
real = pytest.mark.skipif(not REAL.is_dir(), reason="no copies of the lists in ../shared/data/lists")

EU_SPECIMEN = """<?xml version="1.0" encoding="UTF-8"?>
<export xmlns="http://eu.europa.ec/fpi/fsd/export" globalFileId="1"
  generationDate="2026-01-31T10:00:00.000+01:00">
  <sanctionEntity designationDetails="" euReferenceNumber="EU.1.1" logicalId="13">
    <remark>(invented)</remark>
    <regulation regulationType="amendment" programme="UKR">
      <publicationUrl>https://example.org</publicationUrl>
    </regulation>
    <subjectType code="person" classificationCode="P"/>
    <nameAlias firstName="Ivan" lastName="Specimen" wholeName="Ivan Specimen" strong="true"
      nameLanguage="EN"/>
    <nameAlias firstName="" lastName="" wholeName="Иван Специмен" strong="true" nameLanguage="RU"/>
    <nameAlias wholeName="The Baker" strong="false" nameLanguage=""/>
    <citizenship countryIso2Code="RU" countryDescription="RUSSIAN FEDERATION"/>
    <birthdate circa="false" calendarType="GREGORIAN" city="Pskov"
      birthdate="1970-02-03" countryIso2Code="00"/>
    <birthdate circa="true" year="1971" countryIso2Code="00"/>
    <birthdate circa="false" yearRangeFrom="1968" yearRangeTo="1972" countryIso2Code="00"/>
    <identification number="SP1234567"
      identificationTypeDescription="National passport" countryIso2Code="RU"/>
    <address city="Minsk" countryIso2Code="BY"/>
  </sanctionEntity>
  <sanctionEntity logicalId="14" euReferenceNumber="EU.2.2">
    <subjectType code="enterprise" classificationCode="E"/>
    <nameAlias wholeName="Specimen Trading &amp; Shipping LLC" strong="true"/>
  </sanctionEntity>
</export>
"""
UN_SPECIMEN = """<CONSOLIDATED_LIST dateGenerated="2026-01-31T00:00:00Z"><INDIVIDUALS><INDIVIDUAL>
<DATAID>1</DATAID><FIRST_NAME>Ivan</FIRST_NAME><SECOND_NAME>Specimen</SECOND_NAME>{}</INDIVIDUAL></INDIVIDUALS>
<ENTITIES/></CONSOLIDATED_LIST>"""


def test_the_eu_format_is_read_with_everything_in_it() -> None:
    dated, found = eu.read(io.BytesIO(EU_SPECIMEN.encode()), "eu.xml")
    person, company = found
    assert dated == "2026-01-31"
    assert person == Entity(
        id="13",
        list="eu",
        kind="person",
        names=(
            ListedName("Ivan Specimen", "strong", "en"),
            ListedName("Иван Специмен", "strong", "ru"),
            ListedName("The Baker", "weak", ""),
        ),
        births=(
            Span("1970-02-03", "1970-02-03"),
            Span("1971-01-01", "1971-12-31", approximate=True),
            Span("1968-01-01", "1972-12-31"),
        ),
        countries=("RU", "BY"),
        programmes=("UKR",),
        identifiers=(Identifier("National passport", "SP1234567", "RU"),),
        remarks="(invented)",
    )
    assert (company.kind, company.names[0].text) == ("organisation", "Specimen Trading & Shipping LLC")


@real
def test_the_un_list_is_read_whole() -> None:
    """Counted again with ElementTree, which shares nothing with our reader but expat."""
    path = REAL / "UN_consolidated.xml"
    root = ET.parse(path).getroot()
    with path.open("rb") as f:
        dated, entities = un.read(f, path.name)
        found = {e.id: e for e in entities}
    records = [*root.iter("INDIVIDUAL"), *root.iter("ENTITY")]
    assert len(found) == len(records) == path.read_bytes().count(b"<DATAID>")
    assert dated == (root.get("dateGenerated") or "")[:10]
    for record in records:
        listed = {n.text for n in found[record.findtext("DATAID") or ""].names}
        aliases = {" ".join(a.text.split()) for a in record.iter("ALIAS_NAME") if a.text and a.text.strip()}
        assert aliases <= listed
    dated_births = sum(1 for d in root.iter("INDIVIDUAL_DATE_OF_BIRTH") if len(d) > 1 and d[1].tag != "NOTE")
    assert sum(len(e.births) for e in found.values()) >= 0.98 * dated_births  # a few are there twice
    unknown = {c for e in found.values() for c in e.countries if not re.fullmatch("[A-Z]{2}", c)}
    assert unknown <= {"former Soviet Union"}  # kept as it was written


@real
def test_the_ofac_list_is_read_whole() -> None:
    (taken,) = detect.take([REAL / f"{w}.csv" for w in ("sdn", "alt", "add")])
    with (REAL / "sdn.csv").open(encoding="utf-8", newline="") as f:
        rows = list(csv.reader(f))
    with (REAL / "alt.csv").open(encoding="utf-8", newline="") as f:
        aliases = list(csv.reader(f))
    found = {e.id: e for e in taken.entities}
    assert len(found) == len(rows)
    assert sum(e.kind == "person" for e in found.values()) == sum(r[2] == "individual" for r in rows)
    assert sum(e.kind == "vessel" for e in found.values()) == sum(r[2] == "vessel" for r in rows)
    for alias in aliases:
        assert alias[3].strip() in {n.text for n in found[alias[0]].names}
    born = [r for r in rows if re.search(r"(^|; )DOB ", r[11])]
    assert sum(bool(found[r[0]].births) for r in born) >= 0.999 * len(born)  # remarks end at 1,000 characters
    zawahiri = found["2676"]
    assert zawahiri.births == (Span("1951-06-19", "1951-06-19"),)
    assert zawahiri.countries == ("EG",)


@real
@pytest.mark.parametrize("name", ["UN_consolidated.xml", "sdn.csv", "alt.csv", "add.csv"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.93, 0.9999])
def test_a_file_that_ends_early_is_refused(name: str, share: float, tmp_path: Path) -> None:
    names = [name] if name.endswith("xml") else ["sdn.csv", "alt.csv", "add.csv"]
    for one in names:
        data = (REAL / one).read_bytes()
        (tmp_path / one).write_bytes(data[: int(len(data) * share)] if one == name else data)
    if name in (
        "alt.csv",
        "add.csv",
    ):  # cut within a row: cut between two rows, the store's own guard is left
        data = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(data[: data.rindex(b",")])
    with pytest.raises(Unprocessable) as e:
        detect.take([tmp_path / one for one in names])
    assert e.value.code == "kyc.list-damaged"
    assert e.value.details["line"] > 0


def _hostile(name: str) -> bytes:
    laughs = "".join(f'<!ENTITY l{i} "{f"&l{i - 1};" * 10}">' for i in range(1, 10))
    return {
        "billion laughs": f'<!DOCTYPE x [<!ENTITY l0 "ha">{laughs}]>' + UN_SPECIMEN.format("&l9;"),
        "external entity": '<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]>'
        + UN_SPECIMEN.format("&e;"),
        "external document type": '<!DOCTYPE x SYSTEM "http://127.0.0.1:9/x.dtd">' + UN_SPECIMEN.format(""),
        "undeclared entity": UN_SPECIMEN.format("&nothing;"),
        "depth": UN_SPECIMEN.format("<A>" * 100_000),
        "no list": "<html><body/></html>",
        "no entry": "<CONSOLIDATED_LIST/>",
        "no name": "<CONSOLIDATED_LIST><INDIVIDUAL><DATAID>1</DATAID></INDIVIDUAL></CONSOLIDATED_LIST>",
        "not XML": "<CONSOLIDATED_LIST><INDIVIDUAL>",
        "twice": UN_SPECIMEN.format("").replace(
            "<ENTITIES/>", "<ENTITY><DATAID>1</DATAID><FIRST_NAME>x</FIRST_NAME></ENTITY>"
        ),
    }[name].encode()


@pytest.mark.parametrize(
    "name",
    ["billion laughs", "external entity", "external document type", "undeclared entity", "depth", "no list",
     "no entry", "no name", "not XML", "twice"],
)  # fmt: skip
def test_a_hostile_file_is_refused(name: str, tmp_path: Path) -> None:
    path = tmp_path / "list.xml"
    path.write_bytes(_hostile(name))
    with pytest.raises(Unprocessable) as e:
        detect.take([path])
    assert e.value.code == "kyc.list-damaged"


class _Endless(io.RawIOBase):
    """One tag whose attribute goes on for 100 MB."""

    def __init__(self) -> None:
        self.left = 100_000_000
        self.head = b'<CONSOLIDATED_LIST><INDIVIDUAL a="'

    def read(self, size: int = -1) -> bytes:
        head, self.head = self.head, b""
        piece = head or b"x" * min(size, self.left)
        self.left -= len(piece)
        return piece


def test_a_tag_of_100_mb_is_refused_before_it_is_in_memory() -> None:
    endless = _Endless()
    file, roots = cast("BinaryIO", endless), frozenset({"CONSOLIDATED_LIST"})
    tracemalloc.start()
    try:
        with pytest.raises(Unprocessable, match="longer than"):
            list(Reader(file, "x.xml", roots=roots, records=frozenset({"INDIVIDUAL"})).records())
        assert tracemalloc.get_traced_memory()[1] < 16_000_000
    finally:
        tracemalloc.stop()
    assert endless.left > 90_000_000


def test_an_entry_without_end_is_refused() -> None:
    data = io.BytesIO(UN_SPECIMEN.format("<COMMENTS1>" + "word " * 3_000_000 + "</COMMENTS1>").encode())
    with pytest.raises(Unprocessable, match="one entry is larger"):
        un.read(data, "un.xml")


def test_ofacs_files_have_to_be_of_one_day(tmp_path: Path) -> None:
    empty = ",-0- " * 8
    (tmp_path / "sdn.csv").write_text(f'36,"SPECIMEN, Ivan","individual","CUBA"{empty}\r\n\x1a')
    (tmp_path / "alt.csv").write_text('37,1,"aka","OTHER",-0- \r\n')
    (tmp_path / "add.csv").write_text('36,1,-0- ,-0- ,"Cuba",-0- \r\n')
    with pytest.raises(Unprocessable, match="speaks of entry 37"):
        detect.take([tmp_path / f"{w}.csv" for w in ("sdn", "alt", "add")])
    (tmp_path / "alt.csv").write_text('36,1,"fka","OTHER",-0- \r\n\x1a')
    (taken,) = detect.take([tmp_path / f"{w}.csv" for w in ("sdn", "alt", "add")])
    assert [n.text for n in taken.entities[0].names] == ["SPECIMEN, Ivan", "OTHER"]
    with pytest.raises(Unprocessable, match=r"alt\.csv, add\.csv is missing"):
        detect.take([tmp_path / "sdn.csv"])


def test_follow_the_money_is_read_and_a_broken_line_refused(tmp_path: Path) -> None:
    path = tmp_path / "peps.json"
    person = '{"id":"a","schema":"Person","properties":{"name":["Ivan Specimen"],"birthDate":["1970"]}}'
    address = '{"id":"b","schema":"Address","properties":{"full":["Street 1"]}}'
    path.write_text(f"{person}\n{address}\n")
    (taken,) = detect.take([path])
    assert taken.list == "ftm-peps"
    assert [(e.id, e.births[0].first) for e in taken.entities] == [("a", "1970-01-01")]
    path.write_text(f"{person}\n{address[:-5]}\n")
    with pytest.raises(Unprocessable, match="line 2"):
        detect.take([path])


def test_countries_are_known_by_the_names_lists_use() -> None:
    assert countries.code("Democratic People's Republic of Korea") == "KP"
    assert countries.code("Atlantis") == "Atlantis"
    assert countries.of_place("Giza, Egypt") == "EG"
    assert countries.of_place("Korea, North") == "KP"
