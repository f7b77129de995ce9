"""Brings one file of a source into the blob store.

Guarantees: nothing is visible before its size and digest were checked; a file whose content is here is not
fetched; what a killed process had fetched is not fetched again, but for the pieces it was in the middle of;
one process fetches a content at a time, the others wait and find it.

A remote file is fetched in pieces, several at a time, into `<partial>/data`; a finished piece's number is
appended to `<partial>/done`. The folder is named by the promised digest, so that what lies there can only
belong to this content; the digest of the whole decides in the end.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import struct
import threading
from collections.abc import Iterator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path

from allod.errors import Integrity, NotReady
from allod.limits import SOURCE_PIECE_BYTES, SOURCE_TRANSFERS, SOURCE_TRIES_MAX
from allod.models.blobs import Blobs, Moved
from allod.models.sources import RemoteFile, Source

_CHUNK = 1 << 20
_PAUSE_S = 0.2  # after the first failure of a piece; then twice as long each time


def fetch(blobs: Blobs, source: Source, file: RemoteFile, pin: str, moved: Moved) -> str:
    """The digest of the file's content, which is in the store afterwards.

    `pin` names the state of the source, for files without a promise. `moved` is told of bytes as they arrive.
    Raises Integrity `source.wrong-content`, NotReady `model.no-space` or `source.…`, and as the source does.
    """
    if known := here(blobs, file):
        return known
    if file.path is not None:
        return _copy(blobs, file, file.path, moved)
    kind, _, key = file.promise.partition(":")
    if kind not in ("sha256", "git"):
        key = hashlib.sha256(f"{pin}\0{file.name}\0{file.size}".encode()).hexdigest()
    with blobs.making(key) as folder:
        if known := here(blobs, file):  # whoever had the folder before us has finished it
            shutil.rmtree(folder)
            return known
        try:
            return _Download(blobs, source, file, folder, moved).run()
        except OSError as e:
            if e.errno in (errno.ENOSPC, errno.EDQUOT):
                raise NotReady(
                    "model.no-space",
                    f"the disk is full; {file.name} goes on from here when there is room",
                    hint="allod models prune, then pull again",
                ) from e
            raise


def here(blobs: Blobs, file: RemoteFile) -> str | None:
    """The digest of the file's content if it is in the store, which is read; the source is not asked."""
    kind, _, wanted = file.promise.partition(":")
    if kind == "sha256":
        return file.promise if blobs.intact(file.promise) else None
    if kind == "git":
        for address, size in blobs.all():
            if size == file.size and _git_id(blobs.path(address)) == wanted and blobs.intact(address):
                return address
    return None


def _copy(blobs: Blobs, file: RemoteFile, path: Path, moved: Moved) -> str:
    address = blobs.take(path, moved)
    if file.promise and address != file.promise:
        raise wrong(file, address)
    return address


def wrong(file: RemoteFile, found: str) -> Integrity:
    return Integrity(
        "source.wrong-content",
        f"{file.name} is not what the source promised: {found[:19]}… instead of {file.promise[:19]}…",
        hint="pull again; if it stays so, the source is damaged or lies",
        file=file.name,
        expected=file.promise,
        found=found,
    )


def _git_id(path: Path) -> str:
    sha = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    for piece in _pieces(path):
        sha.update(piece)
    return sha.hexdigest()


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb", buffering=0) as f:
        while piece := f.read(_CHUNK):
            yield piece


class _Download:
    """One file that is being fetched, by the one process that may."""

    def __init__(self, blobs: Blobs, source: Source, file: RemoteFile, folder: Path, moved: Moved) -> None:
        self._blobs = blobs
        self._source = source
        self._file = file
        self._folder = folder
        self._moved = moved
        self._data = folder / "data"
        self._done = folder / "done"
        self._stop = threading.Event()

    def run(self) -> str:
        resumed = self._finished()
        self._fetch(resumed)
        address, fits = self._digest()
        if not fits and resumed:
            # A crash of the machine can keep a number in `done` whose bytes never reached the disk.
            self._done.unlink()
            self._fetch(set())
            address, fits = self._digest()
        if not fits:
            shutil.rmtree(self._folder)
            raise wrong(self._file, address)
        self._blobs.keep(self._data, address)
        shutil.rmtree(self._folder)
        return address

    def _finished(self) -> set[int]:
        """Numbers of the pieces that an earlier run completed; those bytes count as moved by nobody."""
        try:
            raw = self._done.read_bytes()
            if self._data.stat().st_size != self._file.size:
                return set()
        except FileNotFoundError:
            return set()
        numbers = struct.unpack(f"<{len(raw) // 4}I", raw[: len(raw) // 4 * 4])
        return {n for n in numbers if n < self._count}

    @property
    def _count(self) -> int:
        return -(-self._file.size // SOURCE_PIECE_BYTES)

    def _fetch(self, finished: set[int]) -> None:
        missing = [n for n in range(self._count) if n not in finished]
        self._blobs.need_room(sum(end - start for start, end in map(self._range, missing)))
        data = os.open(self._data, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        done = os.open(self._done, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            os.truncate(data, self._file.size)
            with ThreadPoolExecutor(min(SOURCE_TRANSFERS, max(1, len(missing)))) as pool:
                waiting = [pool.submit(self._piece, n, data, done) for n in missing]
                try:
                    wait(waiting, return_when=FIRST_EXCEPTION)
                finally:  # also on Ctrl-C: the threads end at their next piece of data
                    self._stop.set()
                    pool.shutdown(cancel_futures=True)
                for one in waiting:
                    if not one.cancelled():
                        one.result()
            self._stop.clear()
            os.fdatasync(data)
        finally:
            os.close(done)
            os.close(data)

    def _range(self, number: int) -> tuple[int, int]:
        start = number * SOURCE_PIECE_BYTES
        return start, min(start + SOURCE_PIECE_BYTES, self._file.size)

    def _piece(self, number: int, data: int, done: int) -> None:
        """Fetches one piece; a transfer that breaks off is taken up where it ended."""
        at, end = self._range(number)
        failures = 0
        while at < end and not self._stop.is_set():
            try:
                for piece in self._source.read(self._file, at, end):
                    os.pwrite(data, piece, at)
                    at += len(piece)
                    failures = 0
                    self._moved(len(piece))
                    if self._stop.is_set():
                        return
            except NotReady as e:
                failures += 1
                if e.code != "source.broken-off" or failures == SOURCE_TRIES_MAX:
                    raise
                self._stop.wait(_PAUSE_S * 2**failures)
        if at == end:
            os.write(done, struct.pack("<I", number))

    def _digest(self) -> tuple[str, bool]:
        """The SHA-256 of the whole, and whether it is what was promised."""
        sha = hashlib.sha256()
        git = hashlib.sha1(b"blob %d\0" % self._file.size, usedforsecurity=False)
        kind, _, wanted = self._file.promise.partition(":")
        for piece in _pieces(self._data):
            sha.update(piece)
            if kind == "git":
                git.update(piece)
        address = f"sha256:{sha.hexdigest()}"
        if kind == "git":
            return address, git.hexdigest() == wanted
        return address, not self._file.promise or address == self._file.promise


class Meter:
    """Counts the bytes of all transfers, from their several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.moved = 0

    def __call__(self, count: int) -> None:
        with self._lock:
            self.moved += count
