"""Which of the formats a file is in, from its first bytes, and what it holds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from allod import digest
from allod.errors import NotFound, TooLarge, Unprocessable
from allod.kyc.screening.entity import Entity
from allod.kyc.screening.lists import eu, ftm, ofac, un
from allod.kyc.screening.lists.damage import damaged
from allod.limits import LIST_ENTRIES_MAX, LIST_FILE_BYTES_MAX

Format = Literal["eu", "un", "ofac", "ftm"]
_HEAD = 4096
_KNOWN = (
    "EU FSF XML 1.1, UN consolidated XML, OFAC's sdn.csv with alt.csv and add.csv, "
    "or FollowTheMoney JSON lines"
)


class Source(msgspec.Struct, frozen=True):
    """A file that was read: its name, the digest of its bytes, and how many they are."""

    file: str
    digest: str
    bytes: int


class Taken(msgspec.Struct, frozen=True, kw_only=True):
    """One list, read to its end. `dated` is the day that the list itself says, empty where it says none."""

    list: str
    dated: str
    sources: tuple[Source, ...]
    entities: tuple[Entity, ...]


def take(paths: Sequence[Path]) -> list[Taken]:
    """The lists in these files; OFAC's three files are one list. Raises Unprocessable, NotFound, TooLarge."""
    formats = {path: _format(path) for path in paths}
    csv = [path for path, found in formats.items() if found == "ofac"]
    taken = [_one(path, found) for path, found in formats.items() if found != "ofac"]
    return [*taken, _ofac(csv)] if csv else taken


def _format(path: Path) -> Format:
    try:
        size = path.stat().st_size
        with path.open("rb") as f:
            head = f.read(_HEAD)
    except OSError as e:
        raise NotFound("kyc.list-unreadable", f"{path} cannot be read: {e.strerror}") from e
    if size > LIST_FILE_BYTES_MAX:
        reason = f"{path} has {size} bytes; at most {LIST_FILE_BYTES_MAX} are read"
        raise TooLarge("kyc.list-too-large", reason)
    text = head.lstrip(b"\xef\xbb\xbf \r\n\t")
    if text.startswith(b"{"):
        return "ftm"
    if text.startswith(b"<"):
        return "eu" if eu.NAMESPACE.encode() in head else "un"
    if path.suffix.lower() == ".csv":
        return "ofac"
    raise Unprocessable("kyc.list-format", f"{path.name} is in none of the known formats", hint=_KNOWN)


def _one(path: Path, form: Format) -> Taken:
    with path.open("rb") as f:
        name, dated = f"ftm-{path.stem}", ""
        if form == "ftm":
            entities = _bounded(path.name, ftm.read(f, path.name, name))
        else:
            module = eu if form == "eu" else un
            name = module.LIST
            dated, found = module.read(f, path.name)
            entities = _bounded(path.name, found)
    return Taken(list=name, dated=dated, sources=(_source(path),), entities=entities)


def _ofac(paths: Sequence[Path]) -> Taken:
    known: dict[str, Path] = {}
    for path in paths:
        which = next((w for w in ofac.COLUMNS if w in path.stem.lower()), "")
        if not which or which in known:
            raise Unprocessable(
                "kyc.list-format",
                f"{path.name} is not one of sdn.csv, alt.csv and add.csv",
                hint="keep the publisher's file names",
            )
        known[which] = path
    if len(known) != len(ofac.COLUMNS):
        missing = ", ".join(f"{w}.csv" for w in ofac.COLUMNS if w not in known)
        raise Unprocessable(
            "kyc.list-incomplete",
            f"OFAC's list is three files; {missing} is missing, and with it names that have to be screened",
            hint="allod kyc lists import sdn.csv alt.csv add.csv",
        )
    found = ofac.read(known["sdn"], known["alt"], known["add"])
    sources = tuple(_source(known[w]) for w in ofac.COLUMNS)
    return Taken(list=ofac.LIST, dated="", sources=sources, entities=_bounded(known["sdn"].name, found))


def _bounded(name: str, entities: Iterable[Entity]) -> tuple[Entity, ...]:
    kept: dict[str, Entity] = {}
    for entity in entities:
        if len(kept) >= LIST_ENTRIES_MAX:
            raise TooLarge("kyc.list-too-large", f"{name} has more than {LIST_ENTRIES_MAX} entries")
        if entity.id in kept:
            raise damaged(name, 1, f"entry {entity.id} is there twice")
        kept[entity.id] = entity
    if not kept:
        raise damaged(name, 1, "the list has no entry to screen against")
    return tuple(kept.values())


def _source(path: Path) -> Source:
    return Source(path.name, digest.of_file(path), path.stat().st_size)
