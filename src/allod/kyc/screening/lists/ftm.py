"""FollowTheMoney entities as JSON lines, for whoever licenses a collection in that form.

Guarantees: every line is one JSON object, or the file is refused. Schemata that are no names to screen
(addresses, ownerships, sanctions) are passed over; a sanction's programme is not joined, for it stands on
another line. The data has its own licence: whoever imports it has one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

import msgspec

from allod.kyc.screening import countries
from allod.kyc.screening.entity import Entity, Identifier, Kind, ListedName, span
from allod.kyc.screening.lists.damage import damaged
from allod.limits import LIST_RECORD_BYTES_MAX

_KINDS: dict[str, Kind] = {
    "Person": "person", "Company": "organisation", "Organization": "organisation",
    "PublicBody": "organisation",
    "LegalEntity": "unknown", "Vessel": "vessel", "Airplane": "aircraft",
}  # fmt: skip
_COUNTRIES = ("nationality", "citizenship", "country", "jurisdiction", "birthCountry", "flag")
_NUMBERS = (
    "passportNumber",
    "idNumber",
    "taxNumber",
    "registrationNumber",
    "imoNumber",
    "leiCode",
    "innCode",
)


class _Line(msgspec.Struct):
    id: str
    schema: str
    properties: dict[str, list[str]] = {}


_DECODER = msgspec.json.Decoder(_Line)


def read(file: BinaryIO, name: str, listed_as: str) -> Iterator[Entity]:
    """The entities that have a name and a schema that is screened."""
    number = 0
    while line := file.readline(LIST_RECORD_BYTES_MAX + 1):
        number += 1
        if len(line) > LIST_RECORD_BYTES_MAX:
            raise damaged(name, number, f"one entry is larger than {LIST_RECORD_BYTES_MAX} bytes")
        if not line.strip():
            continue
        try:
            said = _DECODER.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError) as e:
            raise damaged(name, number, f"this is no FollowTheMoney entity ({e})") from e
        kind = _KINDS.get(said.schema)
        if kind:
            entity = _entity(said, kind, listed_as)
            if not entity.names:
                raise damaged(name, number, f"entity {said.id} has no name")
            yield entity
    if not number:
        raise damaged(name, 1, "the list is empty")


def _entity(said: _Line, kind: Kind, listed_as: str) -> Entity:
    of = said.properties.get
    names = [ListedName(t) for t in of("name", [])]
    names += [ListedName(t, "alias") for t in of("alias", [])]
    names += [ListedName(t, "former") for t in of("previousName", [])]
    names += [ListedName(t, "weak") for t in of("weakAlias", [])]
    return Entity(
        id=said.id,
        list=listed_as,
        kind=kind,
        names=tuple({n.text: n for n in reversed(names) if n.text.strip()}.values())[::-1],
        births=tuple(s for t in of("birthDate", []) if (s := span(t[:10]))),
        countries=countries.codes(c for key in _COUNTRIES for c in of(key, [])),
        programmes=tuple(dict.fromkeys(of("program", []) + of("programId", []))),
        identifiers=tuple(Identifier(key, value) for key in _NUMBERS for value in of(key, [])),
        remarks=" ".join(of("notes", [])),
    )
