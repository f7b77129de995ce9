"""An answer on its way to the client: what may be relayed at once, and what waits for the receipt.

A stream is relayed frame by frame, its terminating frame held back. Any other answer is held whole up to
`RELAY_HOLD_BYTES`; a larger one is relayed but for its last piece. `last()` is what the receipt releases.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from allod import limits
from allod.front import usage
from allod.front.chunks import LAST_CHUNK, chunk
from allod.front.http1 import ResponseHead
from allod.front.problems import Problem, reason
from allod.front.receipt import Record
from allod.ledger.commitment import Commitment
from allod.ledger.statement import Usage

if TYPE_CHECKING:
    from allod.front.client import ClientConnection

_TAIL_BYTES = 16 * limits.KIB  # kept of a large answer, for its usage


class Answer:
    __slots__ = (
        "_chunked", "_client", "_commitment", "_events", "_head", "_held", "_length", "_pieces", "_record",
        "_strips", "_tail", "relayed", "size", "status",
    )  # fmt: skip

    def __init__(self, client: ClientConnection, record: Record, *, strips_usage: bool) -> None:
        self._client = client
        self._record = record
        self._strips = strips_usage
        self._events: usage.Events | None = None
        self._commitment: Commitment | None = None
        self._pieces: list[bytes] = []
        self._held = 0
        self._tail = b""
        self._head = b""
        self._length: int | None = None
        self._chunked = False
        self.relayed = False  # a byte has gone to the client
        self.size = 0  # bytes of the body as sent, or about to be sent by `last`
        self.status = 0

    def open(self, head: ResponseHead, site: bytes, data_class: bytes) -> None:
        """The replica's head is in. Nothing is written yet."""
        record = self._record
        self.status = status = head.status
        self._length = head.length
        kind = head.fields.get(b"content-type", b"application/json")
        if status == 200 and kind.startswith(b"text/event-stream"):
            self._events = usage.Events(strip_usage=self._strips)
            self._length = None
        self._head = (
            b"HTTP/1.1 %d %b\r\ncontent-type: %b\r\n"
            b"allod-receipt: %b\r\nallod-site: %b\r\nallod-data-class: %b\r\n"
            % (status, reason(status), kind, record.id.encode(), site, data_class)
        )
        if b"retry-after" in head.fields:
            self._head += b"retry-after: %b\r\n" % head.fields[b"retry-after"]
        if not self._client.keeps:
            self._head += b"connection: close\r\n"

    @property
    def terminated(self) -> bool:
        """A stream whose own terminating frame has arrived: what the transport does after it is of no
        account.
        """
        return self._events is not None and self._events.done

    @property
    def unfinished(self) -> bool:
        """A stream without its terminating frame."""
        return self._events is not None and not self._events.done

    @property
    def frames(self) -> int:
        return self._events.frames if self._events is not None else 0

    def take(self, data: bytes) -> None:
        """Bytes of the replica's body. Raises FramingError as `usage.Events.feed`."""
        events = self._events
        if events is not None:
            out = events.feed(data)
            if out:
                self._relay(out)
            return
        self._pieces.append(data)
        self._held += len(data)
        if self._held > limits.RELAY_HOLD_BYTES and len(self._pieces) > 1:
            out = b"".join(self._pieces[:-1])
            self._pieces = self._pieces[-1:]
            self._held = len(data)
            self._tail = (self._tail + out)[-_TAIL_BYTES:]
            self._relay(out)

    def _relay(self, out: bytes) -> None:
        commitment, size = self._commitment, len(out)
        if commitment is None:
            self._commitment = commitment = self._record.key.commitment("output")
        commitment.update(out)
        self.size += size
        if not self.relayed:
            out = self._opening(out)
        elif self._chunked:
            out = b"%x\r\n%b\r\n" % (size, out)
        self._client.write(out)

    def _opening(self, out: bytes) -> bytes:
        """The head, with the framing that this client understands, and the first bytes."""
        self.relayed = True
        if self._length is not None:
            return b"%bcontent-length: %d\r\n\r\n%b" % (self._head, self._length, out)
        if self._client.minor:
            self._chunked = True
            return b"%btransfer-encoding: chunked\r\n\r\n%x\r\n%b\r\n" % (self._head, len(out), out)
        return b"%b\r\n%b" % (self._head, out)  # HTTP/1.0: the close ends it

    def used(self) -> Usage:
        """What the engine reported so far."""
        if self._events is not None:
            return self._events.usage
        held = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        return usage.of_answer(self._tail + held if self.relayed else held, whole=not self.relayed)

    def seal(self, *, whole: bool) -> bytes:
        """The commitment to the body as sent; with `whole`, including what `last` will send. Once
        only.
        """
        held = b""
        if whole:
            held = self._events.held if self._events is not None else b"".join(self._pieces)
        self.size += len(held)
        self._pieces = [held]
        if self._commitment is None:
            return self._record.key.commit("output", held)
        self._commitment.update(held)
        return self._commitment.hexdigest()

    def last(self) -> bytes:
        """The bytes that complete the answer; after `seal` only."""
        held = self._pieces[0]
        if not self.relayed:
            if self._events is None:
                return b"%bcontent-length: %d\r\n\r\n%b" % (self._head, len(held), held)
            return self._opening(held) + (LAST_CHUNK if self._chunked else b"")
        if self._chunked:
            return (chunk(held) if held else b"") + LAST_CHUNK
        return held

    def failure(self, problem: Problem) -> bytes:
        """The frame that tells a stream's reader that it was cut; empty where only a reset can say so."""
        if self._events is None or not self.relayed:
            return b""
        frame = b"data: %b\n\n" % problem.body(self._client.dialect)
        if self._commitment is not None:
            self._commitment.update(frame)
        self.size += len(frame)
        return chunk(frame) if self._chunked else frame
