"""The lists of a node, as they were imported: `<home>/kyc/lists/`.

    blobs/<sha256>       the entities of one import, content-addressed, never changed
    <list>.json          every import of that list, the last one in use

Guarantees: an import is taken as a whole or leaves everything as it was, also when the machine stops in its
middle; two imports at once wait for each other; what is read back is checked against its address. Imports
are never removed here: which list a past screening used is part of its evidence.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from allod import digest
from allod.clock import Clock, iso
from allod.errors import Integrity, NotFound, Unprocessable
from allod.kyc.screening.entity import Entity
from allod.kyc.screening.lists.detect import Source, Taken
from allod.ledger import files

SHRUNK_MAX = 0.2  # of the entries gone at once: a list cut off between two entries looks just like that


class Difference(msgspec.Struct, frozen=True):
    """Ids of entries, against the import before."""

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()


class Import(msgspec.Struct, frozen=True, kw_only=True):
    """One import. `digest` is that of the entities as they are kept, `sources` are the files as they came."""

    list: str
    digest: str
    sources: tuple[Source, ...]
    dated: str
    imported: str
    entities: int
    names: int
    difference: Difference


_ENTITIES = msgspec.msgpack.Decoder(tuple[Entity, ...])
_HISTORY = msgspec.json.Decoder(tuple[Import, ...])


class Lists:
    """The lists below one folder. Nothing is created before the first import."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def current(self) -> list[Import]:
        """The import in use of every list, by name."""
        return [self.history(path.stem)[-1] for path in sorted(self._folder.glob("*.json"))]

    def history(self, name: str) -> tuple[Import, ...]:
        """All imports of a list, the newest last. NotFound, Integrity."""
        path = self._folder / f"{name}.json"
        try:
            history = _HISTORY.decode(path.read_bytes())
        except FileNotFoundError as e:
            raise NotFound("kyc.list-unknown", f"there is no list {name!r}", hint="allod kyc lists ls") from e
        except msgspec.DecodeError as e:
            raise Integrity("kyc.list-record-damaged", f"{path} cannot be read ({e})") from e
        if not history:
            raise Integrity("kyc.list-record-damaged", f"{path} names no import")
        return history

    def entities(self, one: Import) -> tuple[Entity, ...]:
        """What an import holds. Integrity where it is no longer what was imported."""
        path = self._blob(one.digest)
        try:
            data = path.read_bytes()
        except OSError as e:
            raise Integrity("kyc.list-damaged", f"{path} cannot be read: {e.strerror}", hint=_AGAIN) from e
        if digest.of(data) != one.digest:
            raise Integrity("kyc.list-damaged", f"{path} is not what was imported", hint=_AGAIN)
        return _ENTITIES.decode(data)

    def put(self, taken: Sequence[Taken], clock: Clock, *, may_shrink: bool = False) -> list[Import]:
        """Puts lists in use. Unprocessable `kyc.list-shrunk` before anything is changed."""
        with self._locked():
            made = [self._compared(one, clock, may_shrink=may_shrink) for one in taken]
            for one, record in zip(taken, made, strict=True):
                blob = self._blob(record.digest)
                if not blob.exists():
                    files.replace(blob, msgspec.msgpack.encode(one.entities), mode=0o600)
                before = self._before(one.list)
                files.replace(
                    self._folder / f"{one.list}.json",
                    msgspec.json.format(msgspec.json.encode((*before, record))),
                    mode=0o600,
                )
        return made

    def _compared(self, taken: Taken, clock: Clock, *, may_shrink: bool) -> Import:
        before = self._before(taken.list)
        known = self.entities(before[-1]) if before else ()
        change = difference(known, taken.entities)
        if known and len(change.removed) > SHRUNK_MAX * len(known) and not may_shrink:
            raise Unprocessable(
                "kyc.list-shrunk",
                f"{len(change.removed)} of {len(known)} entries of {taken.list} would go at once, as if the "
                "file were cut off; the last good import stays in use",
                hint="look at the file; if it is right, import it with --may-shrink",
            )
        return Import(
            list=taken.list,
            digest=digest.of(msgspec.msgpack.encode(taken.entities)),
            sources=taken.sources,
            dated=taken.dated,
            imported=iso(clock.now_us()),
            entities=len(taken.entities),
            names=sum(len(e.names) for e in taken.entities),
            difference=change,
        )

    def _before(self, name: str) -> tuple[Import, ...]:
        return self.history(name) if (self._folder / f"{name}.json").exists() else ()

    def _blob(self, address: str) -> Path:
        return self._folder / "blobs" / address.removeprefix("sha256:")

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        (self._folder / "blobs").mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(self._folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)


_AGAIN = "allod kyc lists import, with the list's files"


def difference(before: Sequence[Entity], after: Sequence[Entity]) -> Difference:
    """What an import changed."""
    old, new = {e.id: e for e in before}, {e.id: e for e in after}
    return Difference(
        added=tuple(i for i in new if i not in old),
        removed=tuple(i for i in old if i not in new),
        changed=tuple(i for i, e in new.items() if i in old and old[i] != e),
    )
