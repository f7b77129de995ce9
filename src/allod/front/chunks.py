"""Chunked bodies (RFC 9112 §7.1), strict: what is ambiguous is refused, never repaired."""

from __future__ import annotations

import re
from typing import Final

from allod import limits
from allod.front.http1 import BARE, FIELDS, FramingError

_CHUNK_LINE: Final = re.compile(rb"([0-9A-Fa-f]{1,15})(?:[ \t]*;[^\x00-\x08\x0a-\x1f\x7f]*+)?")
_TRAILERS: Final = re.compile(FIELDS)
_CHUNK_LINE_BYTES_MAX = 256
_SIZES_MAX = 1024
_SIZES: dict[bytes, int] = {}  # of size lines that were read before: a stream's frames are much alike


class Chunks:
    """Reads one chunked body, fed in any pieces; `rest` is what follows the body."""

    __slots__ = ("_buffer", "_left", "_stage", "done", "rest", "total")
    _SIZE, _DATA, _CRLF, _TRAILER = range(4)

    def __init__(self) -> None:
        self._buffer = b""
        self._left = 0
        self._stage = self._SIZE
        self.done = False
        self.rest = b""
        self.total = 0

    def feed(self, data: bytes) -> bytes:  # noqa: PLR0912 — one state machine, kept in one place
        """The body bytes within `data`. Raises FramingError; the connection is then of no further use."""
        if self._buffer:
            data = self._buffer + data
            self._buffer = b""
        elif self._stage == self._SIZE and (whole := self._one(data)):
            return whole
        out: list[bytes] = []
        at, size = 0, len(data)
        while True:
            if self._stage == self._DATA:
                piece = data[at : at + self._left]
                at += len(piece)
                self._left -= len(piece)
                out.append(piece)
                if self._left:
                    break
                self._stage = self._CRLF
            if self._stage == self._CRLF:
                if size - at < 2:
                    break
                if data[at : at + 2] != b"\r\n":
                    raise FramingError(400, "http.chunk", "a chunk is longer than its size says")
                at += 2
                self._stage = self._SIZE
            if self._stage == self._TRAILER:
                at = self._trailer(data, at)
                break
            line_end = data.find(b"\r\n", at)
            if line_end < 0:
                if size - at > _CHUNK_LINE_BYTES_MAX or BARE.search(data, at):
                    raise FramingError(400, "http.chunk", "a chunk size line is malformed")
                break
            match = _CHUNK_LINE.fullmatch(data, at, line_end)
            if match is None or line_end - at > _CHUNK_LINE_BYTES_MAX:
                raise FramingError(400, "http.chunk", "a chunk size line is malformed")
            self._left = int(match[1], 16)
            self.total += self._left
            at = line_end + 2
            self._stage = self._DATA if self._left else self._TRAILER
        if not self.done:
            self._buffer = data[at:]
        return out[0] if len(out) == 1 else b"".join(out)

    def _one(self, data: bytes) -> bytes:
        """The payload where `data` is exactly one chunk, as a stream's frames mostly are; else nothing."""
        line_end = data.find(b"\r\n", 0, _CHUNK_LINE_BYTES_MAX)
        if line_end < 1 or data[-2:] != b"\r\n":
            return b""
        line = data[:line_end]
        size = _SIZES.get(line)
        if size is None:
            match = _CHUNK_LINE.fullmatch(line)
            if match is None:
                return b""
            size = int(match[1], 16)
            if len(_SIZES) < _SIZES_MAX:
                _SIZES[line] = size
        if not size or len(data) != line_end + 4 + size:
            return b""
        self.total += size
        return data[line_end + 2 : -2]

    def _trailer(self, data: bytes, at: int) -> int:
        if data.startswith(b"\r\n", at):
            end = at
        else:
            end = data.find(b"\r\n\r\n", at)
            if end < 0:
                if len(data) - at > limits.HEADER_BYTES_MAX:
                    raise FramingError(431, "http.headers-too-large", "the trailer section is too large")
                return at
            end += 2
            if not _TRAILERS.fullmatch(data, at, end):
                raise FramingError(400, "http.malformed", "a trailer field is malformed")
        self.done = True
        self.rest = data[end + 2 :]
        return end + 2


def chunk(payload: bytes) -> bytes:
    """One chunk of a chunked body. An empty payload would end the body: the caller never passes one."""
    return b"%x\r\n%b\r\n" % (len(payload), payload)


LAST_CHUNK: Final = b"0\r\n\r\n"
