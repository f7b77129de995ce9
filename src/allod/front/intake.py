"""The body of one request on its way in: its framing, its bounds, and the pace at which it has to come."""

from __future__ import annotations

from typing import TYPE_CHECKING

from allod import limits
from allod.front.chunks import Chunks
from allod.front.http1 import FramingError, RequestHead
from allod.front.problems import Problem

if TYPE_CHECKING:
    from allod.front.worker import Worker

_NO_ROOM = "too many large requests are being received"


class Intake:
    """`held`: the body is kept in memory until it is complete, and counts in the worker's account until
    `release`.
    """

    __slots__ = ("_charged", "_chunks", "_held", "_left", "_pace_from", "_paused_at", "_worker")

    def __init__(self, worker: Worker, head: RequestHead, *, held: bool) -> None:
        """Raises Problem 503 `front.memory`."""
        self._worker = worker
        self._held = held
        self._chunks = Chunks() if head.chunked else None
        self._left = head.length
        self._charged = 0
        self._pace_from = worker.now()  # a body that came at the least rate from here on is in time
        self._paused_at: float | None = None
        if held:
            if worker.body_bytes + head.length > limits.BODIES_BYTES_MAX:
                raise Problem(503, "front.memory", _NO_ROOM, retry_after_s=2)
            self._charge(head.length)

    def take(self, data: bytes) -> tuple[bytes, bytes, bool]:
        """(body bytes in `data`, what follows the body, whether it is complete). Raises FramingError."""
        self._pace_from += len(data) / self._worker.timeouts.body_bytes_per_s
        chunks = self._chunks
        if chunks is None:
            piece = data[: self._left]
            self._left -= len(piece)
            return piece, data[len(piece) :], not self._left
        piece = chunks.feed(data)
        if chunks.total > limits.BODY_BYTES_MAX:
            raise FramingError(413, "body.too-large", f"the body exceeds {limits.BODY_BYTES_MAX} bytes")
        if self._held:
            if self._worker.body_bytes + len(piece) > limits.BODIES_BYTES_MAX:
                raise FramingError(503, "front.memory", _NO_ROOM)
            self._charge(len(piece))
        return piece, chunks.rest, chunks.done

    def deadline(self) -> float:
        """When more has to have come: no gap may be too long, and the whole not too slow."""
        timeouts, now = self._worker.timeouts, self._worker.now()
        if self._paused_at is not None:
            return now + timeouts.body_idle_s
        return min(now + timeouts.body_idle_s, self._pace_from + timeouts.body_grace_s)

    def pause(self) -> None:
        """The client is not read for a while: that is not its doing."""
        self._paused_at = self._worker.now()

    def resume(self) -> None:
        if self._paused_at is not None:
            self._pace_from += self._worker.now() - self._paused_at
            self._paused_at = None

    def release(self) -> None:
        """Out of the account; once the body is of no further use."""
        self._worker.body_bytes -= self._charged
        self._charged = 0

    def _charge(self, size: int) -> None:
        self._charged += size
        self._worker.body_bytes += size
