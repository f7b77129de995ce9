"""The bytes of a bundle: tar headers that follow from path and size alone, and a reader that takes no other.

Guarantees: `header` is a pure function, so what is read is compared, never interpreted: links, devices,
foreign owners, absolute paths and surprises of tar's many dialects cannot occur. Whatever differs is named by
member and by byte of the file. Nothing is held in memory but a piece.
Source: POSIX.1-2024 pax, ustar and pax interchange format.
"""

from __future__ import annotations

import hashlib
import re
import tarfile
from collections.abc import Callable, Iterable, Iterator
from typing import BinaryIO

from allod.errors import Integrity, NotReady, Unprocessable
from allod.models.bundle.manifest import File

BLOCK = 512
END = bytes(2 * BLOCK)
_PIECE = 1 << 20
_NAME_MAX = 100  # bytes of the last part of a path that a ustar header has room for
_SIZE_MAX = 8**11 - 1  # what the size field of a ustar header can say
_SIZE = re.compile(rb"[0-7]{11}\0")
_KINDS = {
    tarfile.SYMTYPE: "a symbolic link", tarfile.LNKTYPE: "a hard link", tarfile.DIRTYPE: "a folder",
    tarfile.CHRTYPE: "a device", tarfile.BLKTYPE: "a device", tarfile.FIFOTYPE: "a pipe",
}  # fmt: skip

Moved = Callable[[int], None]  # told of bytes as they pass


def header(path: str, size: int) -> bytes:
    """The header of a plain file: one block, or three where its size or its name needs pax records."""
    records = b""
    if len(path.rpartition("/")[2]) > _NAME_MAX:
        records += _record("path", path)
        path = path[:_NAME_MAX]
    if size > _SIZE_MAX:
        records += _record("size", str(size))
        size = 0
    block = _block(path, size, b"0")
    if not records:
        return block
    return _block("PaxHeader", len(records), b"x") + records + padding(len(records)) + block


def _record(key: str, value: str) -> bytes:
    """`LENGTH key=value`, where the length counts itself."""
    rest = f" {key}={value}\n"
    length = len(rest) + 1
    while len(rest) + len(str(length)) != length:
        length = len(rest) + len(str(length))
    return f"{length}{rest}".encode()


def _block(path: str, size: int, kind: bytes) -> bytes:
    prefix, name = "", path
    if len(path) > _NAME_MAX:
        prefix, _, name = path.rpartition("/")
    fields = (
        (name.encode(), 100), (b"0000644", 8), (b"0000000", 8), (b"0000000", 8), (b"%011o" % size, 12),
        (b"00000000000", 12), (b" " * 8, 8), (kind, 1), (b"", 100), (b"ustar\x0000", 8), (b"", 32), (b"", 32),
        (b"0000000", 8), (b"0000000", 8), (prefix.encode(), 155), (b"", 12),
    )  # fmt: skip
    block = b"".join(value.ljust(width, b"\0") for value, width in fields)
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def padding(size: int) -> bytes:
    """What fills the last block of a content."""
    return bytes(-size % BLOCK)


def span(size: int, path: str) -> int:
    """Bytes that a member takes in the file."""
    return len(header(path, size)) + size + len(padding(size))


class Reader:
    """Reads a bundle once, from the beginning on. `offset` is where in the file it is."""

    def __init__(self, f: BinaryIO) -> None:
        self._f = f
        self.seekable = f.seekable()
        self.offset = 0

    def back_to(self, offset: int) -> None:
        """To the beginning of a member that was read already. Only where the file is `seekable`."""
        self._f.seek(offset - self.offset, 1)
        self.offset = offset

    def whole(self, path: str, limit: int) -> bytes:
        """The next member, which is called `path`, of whatever size up to `limit`.

        Raises Integrity `bundle.changed`, `bundle.truncated`; Unprocessable `bundle.not-a-bundle`.
        """
        start = self.offset
        block = self._take(BLOCK, path)
        if start == 0 and not block.startswith(b"manifest.json\0") and block[257:262] != b"ustar":
            raise Unprocessable("bundle.not-a-bundle", "this file is no bundle", hint="allod bundle create")
        said = block[124:136]
        size = int(said[:11], 8) if _SIZE.fullmatch(said) else -1
        if size < 0 or block != header(path, size):
            raise changed(path, "its header", start, start + BLOCK)
        if size > limit:
            raise changed(path, f"its header, which announces {size} bytes", start, start + BLOCK)
        data = self._take(size, path)
        self._expect(padding(size), path, "its padding")
        return data

    def pieces(self, file: File, *, begin: int = 0, sha: hashlib._Hash | None = None) -> Iterator[bytes]:
        """The content of the next member, which is `file`, in pieces. Only at the end of the iteration is it
        known to be right.

        With `begin`, that many bytes are jumped over: the caller has them, and `sha` has seen them. Raises
        Integrity `bundle.changed`, `bundle.truncated`, `bundle.extra-member`.
        """
        self._header(file)
        start = self.offset
        sha = sha or hashlib.sha256()
        self._jump(begin)
        left = file.size - begin
        while left:
            piece = self._take(min(left, _PIECE), file.path)
            sha.update(piece)
            left -= len(piece)
            yield piece
        if sha.hexdigest() != file.sha256.removeprefix("sha256:"):
            raise changed(file.path, "its content", start, self.offset)
        self._expect(padding(file.size), file.path, "its padding")

    def through(self, files: Iterable[File], moved: Moved) -> None:
        """Reads everything that is left, which is these files, and keeps nothing. Raises as `pieces` does and
        as `end`."""
        for file in files:
            for piece in self.pieces(file):
                moved(len(piece))
        self.end()

    def skip(self, file: File) -> None:
        """Passes over the content of the next member, which is `file`, unread."""
        self._header(file)
        self._jump(file.size)
        self._expect(padding(file.size), file.path, "its padding")

    def end(self) -> None:
        """What is behind the last member. Raises as `pieces` does, and Integrity `bundle.extra-data`."""
        start = self.offset
        block = self._read(BLOCK, "the end of the file")
        self.offset += len(block)
        if block.count(0) < len(block) - 1:  # one changed bit is damage, more is a member
            raise _foreign(block, start)
        self._compare(block, END[:BLOCK], "the end of the file", "")
        self._expect(END[BLOCK:], "the end of the file", "")
        if self._read(1, "the end of the file"):
            raise Integrity(
                "bundle.extra-data",
                f"something follows the end of the bundle, from byte {self.offset} on",
                hint="do not use it; ask for the file again",
                member="",
                begin=self.offset,
            )

    def _header(self, file: File) -> None:
        expected, start = header(file.path, file.size), self.offset
        found = self._take(len(expected), file.path)
        if found[:BLOCK] != expected[:BLOCK] and _is_other(found, file):
            raise _foreign(found[:BLOCK], start)
        self._compare(found, expected, file.path, "its header")

    def _take(self, count: int, path: str) -> bytes:
        """Exactly `count` bytes."""
        data = self._read(count, path)
        if len(data) < count:
            raise _truncated(path, self.offset + len(data))
        self.offset += count
        return data

    def _read(self, count: int, path: str) -> bytes:
        """At most `count` bytes; fewer only at the end."""
        try:
            return self._f.read(count)
        except OSError as e:
            raise NotReady(
                "bundle.unreadable",
                f"{path} cannot be read from byte {self.offset} of the file on: {e.strerror}",
                hint="the medium may be damaged: copy the file again",
                member=path,
                begin=self.offset,
            ) from e

    def _jump(self, count: int) -> None:
        if self.seekable:
            self._f.seek(count, 1)
            self.offset += count
            return
        while count:
            count -= len(self._take(min(count, _PIECE), "what is passed over"))

    def _expect(self, expected: bytes, path: str, part: str) -> None:
        self._compare(self._take(len(expected), path), expected, path, part)

    def _compare(self, found: bytes, expected: bytes, path: str, part: str) -> None:
        """`found` was read last."""
        if found == expected:
            return
        start = self.offset - len(found)
        if len(found) < len(expected):
            raise _truncated(path, self.offset)
        at = next(i for i, (a, b) in enumerate(zip(found, expected, strict=True)) if a != b)
        raise changed(path, part, start + at, start + at + 1)


def changed(path: str, part: str, begin: int, end: int) -> Integrity:
    """`begin` to `end`: the bytes of the file among which the wrong one is."""
    where = f"byte {begin}" if end == begin + 1 else f"bytes {begin} to {end - 1}"
    return Integrity(
        "bundle.changed",
        f"{path} is not as it was signed: {f'{part}, ' if part else ''}{where} of the file",
        hint="copy the file again; if it is the same there, ask its maker for another one",
        member=path,
        begin=begin,
        end=end,
    )


def _truncated(path: str, at: int) -> Integrity:
    return Integrity(
        "bundle.truncated",
        f"the file ends at byte {at}, in the middle of {path}",
        hint="copy the file again",
        member=path,
        begin=at,
    )


def _is_other(found: bytes, file: File) -> bool:
    """Whether a block that is not `file`'s header is the whole header of something else."""
    try:
        info = tarfile.TarInfo.frombuf(found[:BLOCK], "utf-8", "replace")
    except tarfile.TarError:
        return False
    return info.name != file.path or info.type != tarfile.REGTYPE or info.size != file.size


def _foreign(block: bytes, start: int) -> Integrity:
    try:
        info = tarfile.TarInfo.frombuf(block, "utf-8", "replace")
    except tarfile.TarError:
        return changed("the end of the file", "", start, start + BLOCK)
    what = _KINDS.get(info.type, "a file" if info.type in tarfile.REGULAR_TYPES else "an extended header")
    return Integrity(
        "bundle.extra-member",
        f"{info.name[:200]!r}, {what}, is not what was signed to be at byte {start} of the file",
        hint="do not use it; ask its maker for another one",
        member=info.name[:200],
        begin=start,
    )
