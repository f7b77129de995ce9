"""The United Nations Security Council's consolidated list, as its XML (`CONSOLIDATED_LIST`).

Guarantees: every individual and entity becomes one `Entity`, or the file is refused; both sections have to
be there. Source of the format: the file's own schema, https://www.un.org/sc/resources/sc-sanctions.xsd.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

from allod.kyc.screening import countries
from allod.kyc.screening.entity import Entity, Identifier, ListedName, Span, span, years
from allod.kyc.screening.lists.damage import damaged
from allod.kyc.screening.lists.xml import Node, Reader

LIST = "un"
ROOT = "CONSOLIDATED_LIST"
_NAME_TAGS = ("FIRST_NAME", "SECOND_NAME", "THIRD_NAME", "FOURTH_NAME")


def read(file: BinaryIO, name: str) -> tuple[str, Iterator[Entity]]:
    """The day the list says it was made (empty until the first entity was taken), and its entities."""
    reader = Reader(file, name, roots=frozenset({ROOT}), records=frozenset({"INDIVIDUAL", "ENTITY"}))
    records = reader.records()
    first = next(records, None)
    if first is None:
        raise damaged(name, 1, "the list is empty")
    return reader.root.get("dateGenerated", "")[:10], _entities(first, records, name)


def _entities(first: Node, rest: Iterator[Node], name: str) -> Iterator[Entity]:
    yield _entity(first, name)
    for record in rest:
        yield _entity(record, name)


def _entity(record: Node, name: str) -> Entity:
    number = record.first("DATAID")
    main = " ".join(part for tag in _NAME_TAGS if (part := record.first(tag)))
    if not number or not main:
        raise damaged(name, record.line, "an entry has no DATAID or no name")
    person = record.tag == "INDIVIDUAL"
    listed = record.values("NATIONALITY")
    listed += [a.first("COUNTRY") for a in record.all(f"{record.tag}_ADDRESS")]
    listed += [p.first("COUNTRY") for p in record.all("INDIVIDUAL_PLACE_OF_BIRTH")]
    return Entity(
        id=number,
        list=LIST,
        kind="person" if person else "organisation",
        names=tuple(_names(record, main)),
        births=tuple(dict.fromkeys(_births(record))),
        countries=countries.codes(listed),
        programmes=tuple(p for p in (record.first("UN_LIST_TYPE"), record.first("REFERENCE_NUMBER")) if p),
        identifiers=tuple(_identifiers(record)),
        remarks=record.first("COMMENTS1"),
    )


def _names(record: Node, main: str) -> Iterator[ListedName]:
    seen = {main}
    yield ListedName(main)
    if (original := record.first("NAME_ORIGINAL_SCRIPT")) and original not in seen:
        seen.add(original)
        yield ListedName(original, "alias")
    for alias in record.all(f"{record.tag}_ALIAS"):
        text, quality = alias.first("ALIAS_NAME"), alias.first("QUALITY").lower()
        if text and text not in seen:
            seen.add(text)
            yield ListedName(
                text, "weak" if quality == "low" else "former" if quality == "f.k.a." else "alias"
            )


def _births(record: Node) -> Iterator[Span]:
    for date in record.all("INDIVIDUAL_DATE_OF_BIRTH"):
        about = date.first("TYPE_OF_DATE") == "APPROXIMATELY"
        if date.first("FROM_YEAR"):
            found = years(date.first("FROM_YEAR"), date.first("TO_YEAR"))
        else:
            found = span(date.first("DATE")[:10] or date.first("YEAR"), approximate=about)
        if found:
            yield found


def _identifiers(record: Node) -> Iterator[Identifier]:
    for document in record.all("INDIVIDUAL_DOCUMENT"):
        if number := document.first("NUMBER"):
            issued = document.first("ISSUING_COUNTRY") or document.first("COUNTRY_OF_ISSUE")
            yield Identifier(document.first("TYPE_OF_DOCUMENT"), number, countries.code(issued))
