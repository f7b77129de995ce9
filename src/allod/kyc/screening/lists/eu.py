"""The European Union's consolidated list (FSF), as its XML version 1.1.

Guarantees: every `sanctionEntity` becomes one `Entity`, or the file is refused. Everything is in attributes;
unknown ones are ignored, for the publisher adds some now and then. Namespace:
http://eu.europa.ec/fpi/fsd/export.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

from allod.kyc.screening import countries
from allod.kyc.screening.entity import Entity, Identifier, Kind, ListedName, Span, span, years
from allod.kyc.screening.lists.damage import damaged
from allod.kyc.screening.lists.xml import Node, Reader

LIST = "eu"
NAMESPACE = "http://eu.europa.ec/fpi/fsd/export"
_UNKNOWN_COUNTRY = "00"  # what the list writes where it does not know one
_KINDS: dict[str, Kind] = {
    "P": "person",
    "E": "organisation",
    "person": "person",
    "enterprise": "organisation",
}


def read(file: BinaryIO, name: str) -> tuple[str, Iterator[Entity]]:
    """The day the list says it was made, and its entities."""
    reader = Reader(
        file, name, roots=frozenset({f"{NAMESPACE}}}export"}), records=frozenset({"sanctionEntity"})
    )
    records = reader.records()
    first = next(records, None)
    if first is None:
        raise damaged(name, 1, "the list is empty")
    return reader.root.get("generationDate", "")[:10], _entities(first, records, name)


def _entities(first: Node, rest: Iterator[Node], name: str) -> Iterator[Entity]:
    yield _entity(first, name)
    for record in rest:
        yield _entity(record, name)


def _entity(record: Node, name: str) -> Entity:
    number = record.attributes.get("logicalId") or record.attributes.get("euReferenceNumber", "")
    names = tuple(dict.fromkeys(_names(record)))
    if not number or not names:
        raise damaged(name, record.line, "an entry has no logicalId or no name")
    listed = [
        node.attributes.get("countryIso2Code", "") or node.attributes.get("countryDescription", "")
        for tag in ("citizenship", "address", "birthdate")
        for node in record.all(tag)
    ]
    return Entity(
        id=number,
        list=LIST,
        kind=_kind(record),
        names=names,
        births=tuple(dict.fromkeys(_births(record))),
        countries=countries.codes(c for c in listed if c != _UNKNOWN_COUNTRY),
        programmes=tuple(
            dict.fromkeys(p for r in record.all("regulation") if (p := r.attributes.get("programme", "")))
        ),
        identifiers=tuple(_identifiers(record)),
        remarks=" ".join(text for r in record.all("remark") if (text := " ".join(r.text.split()))),
    )


def _kind(record: Node) -> Kind:
    subject = next(record.all("subjectType"), None)
    said = subject.attributes if subject else {}
    return _KINDS.get(said.get("classificationCode", ""), _KINDS.get(said.get("code", ""), "unknown"))


def _names(record: Node) -> Iterator[ListedName]:
    for alias in record.all("nameAlias"):
        said = alias.attributes
        parts = (said.get("firstName", ""), said.get("middleName", ""), said.get("lastName", ""))
        text = " ".join((said.get("wholeName", "") or " ".join(parts)).split())
        if text:
            weak = said.get("strong", "true").lower() == "false"
            yield ListedName(text, "weak" if weak else "strong", said.get("nameLanguage", "").lower())


def _births(record: Node) -> Iterator[Span]:
    for node in record.all("birthdate"):
        said = node.attributes
        about = said.get("circa", "false").lower() == "true"
        found = span(said.get("birthdate", "")[:10], approximate=about)
        if not found and said.get("yearRangeFrom"):
            found = years(said["yearRangeFrom"], said.get("yearRangeTo", ""))
        if not found and said.get("year"):
            month, day = said.get("monthOfYear", ""), said.get("dayOfMonth", "")
            text = said["year"] + (f"-{int(month):02}" if month.isdigit() and month != "0" else "")
            text += f"-{int(day):02}" if len(text) > 4 and day.isdigit() and day != "0" else ""
            found = span(text, approximate=about)
        if found:
            yield found


def _identifiers(record: Node) -> Iterator[Identifier]:
    for node in record.all("identification"):
        said = node.attributes
        if number := said.get("number") or said.get("latinNumber"):
            issued = said.get("countryIso2Code", "")
            kind = said.get("identificationTypeDescription") or said.get("identificationTypeCode", "")
            yield Identifier(kind, number, "" if issued == _UNKNOWN_COUNTRY else issued)
