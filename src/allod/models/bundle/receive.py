"""Takes the contents out of a bundle: models' files into the blob store, all else into a staging folder.

Guarantees: what appears in the store or under a staged name has the digest that the signed manifest says;
what is in the store already is neither read nor written again; what a killed process had of a file is gone on
with. Nothing that anybody uses changes here.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

from allod import digest
from allod.errors import Integrity, Unprocessable
from allod.ledger import files as durable
from allod.limits import BUNDLE_TEXT_BYTES_MAX
from allod.models.blobs import Blobs
from allod.models.bundle.container import Moved, Reader
from allod.models.bundle.contents import check_text
from allod.models.bundle.manifest import File, Manifest

_PIECE = 1 << 20
_HALF = "from-bundle"


def receive(reader: Reader, manifest: Manifest, models: Path, staged: Path, moved: Moved) -> None:
    """Reads a bundle from its first content to its end.

    Raises Integrity as `Reader` does; NotReady `model.no-space`; Denied `bundle.secret`; TooLarge
    `bundle.text-too-large`.
    """
    blobs = Blobs(models)
    blobs.need_room(sum(f.size for f in manifest.of("blob", "wheel") if not blobs.has(f.sha256)))
    for file in manifest.files:
        if file.kind == "blob":
            _blob(reader, file, blobs, moved)
        elif file.kind == "wheel":
            _wheel(reader, file, staged / file.path, moved)
        else:
            _text(reader, file, staged / file.path)
            moved(file.size)
    reader.end()


def _blob(reader: Reader, file: File, blobs: Blobs, moved: Moved) -> None:
    if blobs.intact(file.sha256):
        reader.skip(file)
        moved(file.size)
        return
    with blobs.making(file.sha256.removeprefix("sha256:")) as folder:
        half = folder / _HALF
        start = reader.offset
        try:
            _go_on(reader, file, half, moved)
        except Integrity:
            # What an interrupted attempt left may be what is wrong: once more, from this file's beginning.
            if not reader.seekable or not half.exists():
                raise
            half.unlink()
            reader.back_to(start)
            _go_on(reader, file, half, lambda _count: None)
        blobs.keep(half, file.sha256)
        shutil.rmtree(folder)


def _go_on(reader: Reader, file: File, half: Path, moved: Moved) -> None:
    """Writes the member to `half`, behind what lies there. On damage `half` is gone unless it held more
    before than this attempt wrote."""
    fd = os.open(half, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        have = min(os.fstat(fd).st_size, file.size) if reader.seekable else 0
        sha = _hashed(fd, have)
        os.ftruncate(fd, have)
        moved(have)
        try:
            for piece in reader.pieces(file, begin=have, sha=sha):
                durable.write_fully(fd, piece)
                moved(len(piece))
        except Integrity:
            if not have:
                half.unlink()
            raise
        os.fdatasync(fd)
    finally:
        os.close(fd)


def _hashed(fd: int, count: int) -> hashlib._Hash:
    """The running hash of a file's first bytes; the file is then behind them."""
    sha = hashlib.sha256()
    while count:
        piece = os.read(fd, min(count, _PIECE))
        sha.update(piece)
        count -= len(piece)
    return sha


def _wheel(reader: Reader, file: File, target: Path, moved: Moved) -> None:
    if target.is_file() and digest.of_file(target) == file.sha256:
        reader.skip(file)
        moved(file.size)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    half = target.with_name(f".{target.name}")
    with half.open("wb") as f:
        for piece in reader.pieces(file):
            f.write(piece)
            moved(len(piece))
        f.flush()
        os.fsync(f.fileno())
    half.replace(target)


def _text(reader: Reader, file: File, target: Path) -> None:
    if file.size > BUNDLE_TEXT_BYTES_MAX:
        raise Unprocessable("bundle.text-too-large", f"{file.path} has {file.size} bytes")
    data = b"".join(reader.pieces(file))
    check_text(file.path, data)
    target.parent.mkdir(parents=True, exist_ok=True)
    durable.replace(target, data)
