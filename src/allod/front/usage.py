"""What an engine says it used, read from its answer while the answer passes by.

`of_answer` reads a whole JSON answer. `Events` cuts a server-sent stream into frames: it meters, takes the
usage-only frame out where the client did not ask for one, and holds back the terminating frame, which may
leave only after the receipt is on disk. Bytes of a frame are never changed.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

from allod import limits
from allod.front.http1 import FramingError
from allod.ledger.statement import Usage

_TAIL_BYTES = 4096  # engines write usage last; a larger answer is searched only there
_USAGE_KEY: Final = re.compile(rb'"(usage|usage_info)"\s*:\s*\{')
_BOUNDARY: Final = re.compile(rb"\r\n\r\n|\n\n|\r\r")
_DONE: Final = re.compile(rb"data:[ ]?\[DONE\]")


class _Tokens(msgspec.Struct, frozen=True):
    prompt_tokens: int | None = 0
    completion_tokens: int | None = 0


class _Pages(msgspec.Struct, frozen=True):
    pages_processed: int = 0


class _Answer(msgspec.Struct, frozen=True):
    usage: _Tokens | None = None
    usage_info: _Pages | None = None


class _Frame(msgspec.Struct, frozen=True):
    usage: _Tokens | None = None
    choices: list[msgspec.Raw] | None = None


_ANSWER = msgspec.json.Decoder(_Answer)
_FRAME = msgspec.json.Decoder(_Frame)
_TOKENS = msgspec.json.Decoder(_Tokens)
_PAGES = msgspec.json.Decoder(_Pages)
NONE: Final = Usage()


def of_answer(tail: bytes, *, whole: bool) -> Usage:
    """The usage in a JSON answer of which `tail` is the end (all of it where `whole`)."""
    try:
        if whole and len(tail) <= _TAIL_BYTES * 4:
            return _from(_ANSWER.decode(tail))
        found = _from_tail(tail[-_TAIL_BYTES:])
        return _from(_ANSWER.decode(tail)) if found is NONE and whole else found
    except msgspec.DecodeError:
        return NONE  # metering never fails an answer; the receipt then says that there was no source


def _from(answer: _Answer) -> Usage:
    if answer.usage is not None:
        return _counted(answer.usage)
    if answer.usage_info is not None:
        return Usage(pages=max(answer.usage_info.pages_processed, 0), source="engine")
    return NONE


def _from_tail(tail: bytes) -> Usage:
    found = list(_USAGE_KEY.finditer(tail))
    if not found:
        return NONE
    last = found[-1]
    start = last.end() - 1
    end = _object_end(tail, start)
    if last[1] == b"usage":
        return _counted(_TOKENS.decode(tail[start:end]))
    return Usage(pages=max(_PAGES.decode(tail[start:end]).pages_processed, 0), source="engine")


def _object_end(data: bytes, start: int) -> int:
    depth = 0
    for at in range(start, len(data)):
        if data[at] == 0x7B:
            depth += 1
        elif data[at] == 0x7D:
            depth -= 1
            if not depth:
                return at + 1
    return len(data)


def _counted(tokens: _Tokens) -> Usage:
    return Usage(
        input_tokens=max(tokens.prompt_tokens or 0, 0),
        output_tokens=max(tokens.completion_tokens or 0, 0),
        source="engine",
    )


class Events:
    """One server-sent stream on its way through. `feed` returns the bytes that may be relayed now."""

    __slots__ = ("_partial", "_strip", "done", "frames", "held", "usage")

    def __init__(self, *, strip_usage: bool) -> None:
        self._strip = strip_usage
        self._partial = b""
        self.held = b""  # from the terminating frame on: relayed once the receipt is durable
        self.done = False  # the terminating frame has been seen
        self.frames = 0  # data frames relayed, for an estimate where the stream is cut
        self.usage: Usage = NONE

    def feed(self, data: bytes) -> bytes:
        """Raises FramingError where one frame exceeds its bound."""
        whole = not self._partial and not self.done and data.endswith(b"\n\n") and b"[DONE]" not in data
        if whole and (b'"usage"' not in data or not _USAGE_KEY.search(data)):
            self.frames += 1 if data.find(b"\n\n") == len(data) - 2 else data.count(b"\n\n")
            return data
        return self._slowly(self._partial + data if self._partial else data)

    def _slowly(self, data: bytes) -> bytes:
        out: list[bytes] = []
        at = 0
        for boundary in _BOUNDARY.finditer(data):
            frame = data[at : boundary.end()]
            at = boundary.end()
            if self.done:
                self.held += frame
            elif _DONE.match(frame):
                self.done = True
                self.held = frame
            elif self._keeps(frame):
                self.frames += 1
                out.append(frame)
        self._partial = data[at:]
        if len(self._partial) > limits.SSE_FRAME_BYTES_MAX:
            raise FramingError(
                502, "upstream.frame-too-large", "the replica sent a stream frame beyond its bound"
            )
        return b"".join(out)

    def _keeps(self, frame: bytes) -> bool:
        """Takes the usage out of a frame; False for one that carries nothing else and was not asked for."""
        if b'"usage"' not in frame or not _USAGE_KEY.search(frame):
            return True
        data = b"\n".join(line[5:].lstrip(b" ") for line in frame.splitlines() if line.startswith(b"data:"))
        try:
            seen = _FRAME.decode(data)
        except msgspec.DecodeError:
            return True
        if seen.usage is None:
            return True
        self.usage = _counted(seen.usage)
        return bool(seen.choices) or not self._strip
