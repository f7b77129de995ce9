"""OFAC's Specially Designated Nationals, as `sdn.csv` with its `alt.csv` (aliases) and `add.csv` (addresses).

Guarantees: every row of sdn.csv becomes one `Entity`, or the files are refused; an alias or address of an
entry that is not there refuses them too, for then one of the files is cut off or of another day. `-0-` is
the format's empty value. Format: OFAC's "SDN data specification" (dat_spec.txt). Birth dates and papers
stand in the remarks.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from allod.kyc.screening import countries
from allod.kyc.screening.entity import Entity, Identifier, Kind, ListedName, NameKind, Span, span, years
from allod.kyc.screening.lists.damage import damaged
from allod.limits import LIST_CSV_FIELD_BYTES_MAX

LIST = "ofac-sdn"
COLUMNS = {"sdn": 12, "alt": 5, "add": 6}
_KINDS: dict[str, Kind] = {
    "individual": "person",
    "vessel": "vessel",
    "aircraft": "aircraft",
    "": "organisation",
}
_ALIASES: dict[str, NameKind] = {"aka": "alias", "fka": "former", "nka": "alias"}
_BIRTH = re.compile(r"(?:alt\. )?DOB (circa )?([0-9A-Za-z ]+?)(?:(?: to |-)([0-9A-Za-z ]+?))?\.?")
_WEAK = re.compile(r"(?:alt\. )?a\.k\.a\. '([^']+)'\.?")
_PLACE = re.compile(r"(?:alt\. )?(?:nationality|citizen|POB) (.+?)\.?")
_PAPER = re.compile(
    r"(?:alt\. )?(Passport|National ID No\.|Cedula No\.|NIT #|RUC #|Tax ID No\.|Registration ID|SSN|IMO|"
    r"Vessel Registration Identification) ([^()]+?)(?: \(([^()]+)\))?(?: (?:issued|expires) .*)?\.?"
)

Rows = list[tuple[int, list[str]]]  # line in the file, cells


def read(sdn: Path, alt: Path, add: Path) -> Iterator[Entity]:
    """The entities of sdn.csv, with the aliases and countries that the other two files add."""
    aliases = _by_entry(alt, "alt")
    addresses = _by_entry(add, "add")
    for line, row in _rows(sdn, "sdn"):
        yield _entity(sdn.name, line, row, aliases.pop(row[0], []), addresses.pop(row[0], []))
    for path, rest in ((alt, aliases), (add, addresses)):
        if rest:
            line, row = next(iter(rest.values()))[0]
            raise damaged(path.name, line, f"it speaks of entry {row[0]}, which {sdn.name} does not have")


def _rows(path: Path, which: str) -> Iterator[tuple[int, list[str]]]:
    csv.field_size_limit(LIST_CSV_FIELD_BYTES_MAX)
    seen: set[str] = set()
    with path.open(encoding="utf-8", errors="strict", newline="") as f:
        reader = csv.reader(_lines(f, path.name), strict=True)
        try:
            for row in reader:
                if row == ["\x1a"]:  # the end-of-file mark of the original files
                    continue
                if len(row) != COLUMNS[which]:
                    reason = f"{len(row)} columns where {which}.csv has {COLUMNS[which]}"
                    raise damaged(path.name, reader.line_num, reason)
                cells = ["" if c.strip() == "-0-" else c.strip() for c in row]
                if not cells[0].isdigit():
                    raise damaged(path.name, reader.line_num, f"{cells[0]!r} is not the number of an entry")
                if which == "sdn" and cells[0] in seen:
                    raise damaged(path.name, reader.line_num, f"entry {cells[0]} is there twice")
                seen.add(cells[0])
                yield reader.line_num, cells
        except csv.Error as e:
            raise damaged(path.name, reader.line_num, f"this is not well-formed CSV ({e})") from e
    if not seen:
        raise damaged(path.name, 1, "the list is empty")


def _lines(f: Iterator[str], name: str) -> Iterator[str]:
    try:
        yield from f
    except UnicodeDecodeError as e:
        raise damaged(name, 1, f"byte {e.start} of a piece is no UTF-8") from e


def _by_entry(path: Path, which: str) -> dict[str, Rows]:
    found: dict[str, Rows] = {}
    for line, row in _rows(path, which):
        found.setdefault(row[0], []).append((line, row))
    return found


def _entity(name: str, line: int, row: list[str], aliases: Rows, addresses: Rows) -> Entity:
    number, main, kind, programme, *_ = row
    if not main or kind not in _KINDS:
        raise damaged(name, line, "an entry has no name" if not main else f"there is no kind {kind!r}")
    remarks = row[11]
    said = [part.strip() for part in remarks.split(";")]
    names = [ListedName(main)]
    names += [ListedName(a[3], _ALIASES.get(a[2].lower(), "alias")) for _, a in aliases if a[3]]
    names += [ListedName(found[1], "weak") for part in said if (found := _WEAK.fullmatch(part))]
    listed = [a[4] for _, a in addresses] + ([row[9]] if row[9] else [])
    listed += [countries.of_place(found[1]) for part in said if (found := _PLACE.fullmatch(part))]
    return Entity(
        id=number,
        list=LIST,
        kind=_KINDS[kind],
        names=tuple({n.text: n for n in reversed(names)}.values())[::-1],
        births=tuple(dict.fromkeys(b for part in said if (b := _birth(part)))),
        countries=countries.codes(listed),
        programmes=tuple(p for p in programme.replace("] [", ";").strip("[]").split(";") if p),
        identifiers=tuple(_identifiers(said, row[5])),
        remarks=remarks,
    )


def _birth(part: str) -> Span | None:
    found = _BIRTH.fullmatch(part)
    if not found:
        return None
    first, last = _iso(found[2]), _iso(found[3] or "")
    if found[3]:
        return years(first, last)
    return span(first, approximate=bool(found[1]))


def _iso(text: str) -> str:
    """`14 Jun 1975`, `Jun 1975` or `1975` as ISO 8601; empty for anything else."""
    for form, kept in (("%d %b %Y", 10), ("%b %Y", 7), ("%Y", 4)):
        try:
            return datetime.strptime(text.strip(), form).strftime("%Y-%m-%d")[:kept]  # noqa: DTZ007 - a day
        except ValueError:
            continue
    return ""


def _identifiers(said: list[str], call_sign: str) -> Iterator[Identifier]:
    if call_sign:
        yield Identifier("Call sign", call_sign)
    for part in said:
        if found := _PAPER.fullmatch(part):
            yield Identifier(found[1], found[2].strip(), countries.code(found[3] or ""))
