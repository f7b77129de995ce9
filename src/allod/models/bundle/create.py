"""Writes a bundle: manifest and signature first, then every content, hashed once more as it goes by.

Guarantees: the file appears under its name only when all of it is on the disk; the same contents, origin, key
and time give the same bytes. What was begun lies beside it as `NAME.partial`; the next attempt goes on behind
the last member that is whole there, if it is about the same contents.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import msgspec
from cryptography.hazmat.primitives.asymmetric import ec

from allod.errors import AllodError, Integrity, NotReady, Usage
from allod.ledger.files import sync_folder
from allod.limits import BUNDLE_MANIFEST_BYTES_MAX
from allod.models.bundle import manifest as manifests
from allod.models.bundle import signature
from allod.models.bundle.container import END, Moved, Reader, header, padding, span
from allod.models.bundle.contents import Contents, Item
from allod.models.bundle.manifest import Manifest

_PIECE = 1 << 20


def create(
    out: Path,
    contents: Contents,
    key: ec.EllipticCurvePrivateKey,
    *,
    origin: str,
    version: str,
    created: str,
    moved: Moved = lambda _count: None,
) -> Manifest:
    """Writes `out`, which must not be there. `created` is RFC 3339, UTC; `version` this software's.

    Raises Usage `bundle.exists`; NotReady `bundle.busy`, `bundle.no-space`, `bundle.cannot-write`; Integrity
    `model.changed` where a content is not what it was.
    """
    if out.exists():
        raise Usage("bundle.exists", f"{out} is there already", hint="choose another name, or remove it")
    manifest = Manifest(
        version=1,
        created=created,
        origin=origin,
        allod=version,
        signer=signature.signer_of(key),
        models=contents.models,
        files=tuple(item.file for item in contents.items),
    )
    manifests.check(manifest)
    try:
        return _written(out, manifest, contents, key, moved)
    except OSError as e:
        raise NotReady(
            "bundle.cannot-write",
            f"{out} cannot be written to its end: {e.strerror}",
            hint="what is there is gone on with: create it again when there is room and a folder for it",
        ) from e


def _written(
    out: Path, manifest: Manifest, contents: Contents, key: ec.EllipticCurvePrivateKey, moved: Moved
) -> Manifest:
    half = out.with_name(f"{out.name}.partial")
    with _alone(half) as f:
        manifest, done = _begun(f, manifest, key, moved)
        first = signature.head(manifest, key)
        if not done:
            f.seek(0)
            f.truncate()
            f.write(first)
        items = contents.items[done:]
        _need_room(half, sum(span(i.file.size, i.file.path) for i in items))
        for item in items:
            _write(f, item, moved)
        f.write(END)
        f.flush()
        os.fsync(f.fileno())
        half.replace(out)
    sync_folder(out.parent)
    return manifest


@contextmanager
def _alone(half: Path) -> Iterator[BinaryIO]:
    """The partial file, which no other process writes to."""
    fd = os.open(half, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    with os.fdopen(fd, "r+b") as f:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as e:
            raise NotReady("bundle.busy", f"another process is writing {half}") from e
        yield f


def _begun(
    f: BinaryIO, wanted: Manifest, key: ec.EllipticCurvePrivateKey, moved: Moved
) -> tuple[Manifest, int]:
    """The manifest to go on with, and how many of its members are whole in the file; the file is then at the
    end of the last one."""
    try:
        old = manifests.parse(Reader(f).whole(signature.MANIFEST, BUNDLE_MANIFEST_BYTES_MAX))
    except AllodError:
        return wanted, 0
    same = msgspec.structs.replace(wanted, created=old.created)
    first = signature.head(same, key)
    f.seek(0)
    if f.read(len(first)) != first:
        return wanted, 0
    reader, good, done = Reader(f), len(first), 0
    try:
        for file in same.files:
            for piece in reader.pieces(file):
                moved(len(piece))
            good, done = good + span(file.size, file.path), done + 1
    except Integrity:
        moved(-max(0, reader.offset - (good - len(first)) - len(header(file.path, file.size))))
    f.seek(good)
    f.truncate()
    return same, done


def _write(f: BinaryIO, item: Item, moved: Moved) -> None:
    """One member, padded. Its content has to be what the manifest says."""
    file = item.file
    f.write(header(file.path, file.size))
    sha, count = hashlib.sha256(), 0
    for piece in _content(item):
        sha.update(piece)
        f.write(piece)
        count += len(piece)
        moved(len(piece))
    if count != file.size or f"sha256:{sha.hexdigest()}" != file.sha256:
        raise Integrity(
            "model.changed",
            f"{item.source or file.path} is not the file that was registered",
            hint="bring it back from a source you trust",
            file=str(item.source or file.path),
        )
    f.write(padding(file.size))


def _content(item: Item) -> Iterator[bytes]:
    if item.source is None:
        yield item.data
        return
    with item.source.open("rb") as source:
        while piece := source.read(_PIECE):
            yield piece


def _need_room(half: Path, count: int) -> None:
    free = shutil.disk_usage(half.parent).free
    if count > free:
        raise NotReady(
            "bundle.no-space",
            f"{count} bytes are needed beside {half.name} and {free} are free",
            hint="write it to a larger volume",
            needed=count,
            free=free,
        )
