"""What the server asks of a page worker and what comes back: msgpack, each frame after its length.

The length is four bytes, big-endian. A worker answers each job with exactly one frame, in order; the first
frame it sends, unasked, is `Ready`.
"""

from __future__ import annotations

import msgspec

from allod.engines.ocr.pages import Kind
from allod.engines.ocr.recognise import PageText

LENGTH_BYTES = 4


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """The worker has imported what it needs."""


class Count(msgspec.Struct, frozen=True, tag="count"):
    """How many pages has the document?"""

    path: str
    kind: Kind


class Read(msgspec.Struct, frozen=True, tag="read"):
    """What does page `index` say?"""

    path: str
    kind: Kind
    index: int


class Counted(msgspec.Struct, frozen=True, tag="counted"):
    pages: int


class PageRead(msgspec.Struct, frozen=True, tag="page"):
    page: PageText


class Refused(msgspec.Struct, frozen=True, tag="refused"):
    """An AllodError, across the process boundary."""

    status: int
    code: str
    message: str
    hint: str = ""


Job = Count | Read
Answer = Ready | Counted | PageRead | Refused

_jobs: msgspec.msgpack.Decoder[Job] = msgspec.msgpack.Decoder(Job)
_answers: msgspec.msgpack.Decoder[Answer] = msgspec.msgpack.Decoder(Answer)


def frame(message: Job | Answer) -> bytes:
    body = msgspec.msgpack.encode(message)
    return len(body).to_bytes(LENGTH_BYTES, "big") + body


def job(body: bytes) -> Job:
    return _jobs.decode(body)


def answer(body: bytes) -> Answer:
    return _answers.decode(body)
