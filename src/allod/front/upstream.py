"""Connections to replicas: HTTP/1.1 over Unix sockets, kept alive and reused.

An `Upstream` carries one exchange at a time for its `Sink`. It reports the head, the body in pieces, and
exactly one end: `upstream_end` for a complete answer, `upstream_lost` for everything else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol, cast

from allod import limits
from allod.front.breaker import Breaker
from allod.front.chunks import Chunks
from allod.front.http1 import FramingError, Repeated, ResponseHead, response_head
from allod.front.snapshot import ReplicaEntry
from allod.runtime import sockets

_JOINED_BYTES_MAX = 16 * limits.KIB  # from here on two buffers in one call cost less than a copy


class Sink(Protocol):
    """Takes the answer of one exchange."""

    def upstream_head(self, head: ResponseHead) -> None: ...
    def upstream_body(self, data: bytes) -> None: ...
    def upstream_end(self) -> None: ...
    def upstream_lost(self, reason: str) -> None: ...
    def upstream_full(self, full: bool) -> None:
        """The replica does not read as fast as it is written to (True), or does again (False)."""
        ...


class Pool:
    """The idle connections to one socket, most recently used first."""

    __slots__ = ("_closed", "_connecting", "_departing", "_free", "path")

    def __init__(self, path: str) -> None:
        self.path = path
        self._free: list[Upstream] = []
        self._departing: list[tuple[Upstream, Sink, bytes, bytes]] = []
        self._connecting: set[asyncio.Task[None]] = set()
        self._closed = False

    def take(self) -> Upstream | None:
        """An idle connection, if there is one."""
        return self._free.pop() if self._free else None

    def connect(self, done: Callable[[Upstream | None], None]) -> None:
        """Opens a connection; `done` gets it, or None where the socket does not answer."""
        task = asyncio.ensure_future(self._connect(done))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    async def _connect(self, done: Callable[[Upstream | None], None]) -> None:
        loop = asyncio.get_running_loop()
        try:
            with sockets.itself(self.path) as path:
                async with asyncio.timeout(limits.ENGINE_CONNECT_TIMEOUT_S):
                    _, connection = await loop.create_unix_connection(lambda: Upstream(self), path)
        except (OSError, TimeoutError):
            done(None)
        else:
            done(connection)

    def depart(self, connection: Upstream, sink: Sink, head: bytes, body: bytes) -> None:
        """Sends a whole request at the end of this turn of the loop, together with the others of the turn.

        Written one by one as they are read, each would find the replica asleep again, and waking a process
        on another core costs more than the write: at eight connections a seventh of what an exchange costs.
        """
        if not self._departing:
            asyncio.get_running_loop().call_soon(self._depart)
        self._departing.append((connection, sink, head, body))

    def _depart(self) -> None:
        departing, self._departing = self._departing, []
        for connection, sink, head, body in departing:
            if connection.sink is not sink:
                continue  # it has been cancelled, or the connection lost
            if len(body) < _JOINED_BYTES_MAX:
                connection.write(head + body)
            else:
                connection.write(head, body)

    def give_back(self, connection: Upstream) -> None:
        if not self._closed and len(self._free) < limits.ENGINE_POOL_IDLE_MAX:
            self._free.append(connection)
        else:
            connection.close()

    def gone(self, connection: Upstream) -> None:
        if connection in self._free:
            self._free.remove(connection)

    def close(self) -> None:
        """Closes what is idle; what is in use closes when its exchange ends."""
        self._closed = True
        while self._free:
            self._free.pop().close()


class Replica:
    """One replica as this worker sees it: its circuit, its connections and how busy it is.

    `share` grows by (seconds / exchanges in flight): the difference between two readings is the service time
    of an exchange with its neighbours' part taken out. Only this worker's exchanges are known here.
    """

    __slots__ = (
        "_share", "_share_at", "breaker", "entry", "id", "inflight", "last_used", "local", "pool", "site",
        "site_header",
    )  # fmt: skip

    def __init__(self, entry: ReplicaEntry, *, local: bool) -> None:
        self.entry = entry
        self.id = entry.id
        self.site = entry.site
        self.site_header = entry.site.encode("ascii", "replace").replace(b"\r", b"?").replace(b"\n", b"?")
        self.local = local
        self.breaker = Breaker()
        self.pool = Pool(entry.socket)
        self.inflight = 0
        self.last_used = 0
        self._share = 0.0
        self._share_at = 0.0

    def started(self, now: float) -> float:
        """Counts one more exchange in; returns its first reading of the share clock."""
        inflight = self.inflight
        if inflight:
            self._share += (now - self._share_at) / inflight
        self._share_at = now
        self.inflight = inflight + 1
        return self._share

    def finished(self, now: float, reading: float) -> float:
        """Counts it out; returns its apportioned service time in seconds."""
        inflight = self.inflight
        self._share += (now - self._share_at) / inflight
        self._share_at = now
        self.inflight = inflight - 1
        return self._share - reading


class Upstream(asyncio.Protocol):
    """One connection. `fresh` until it has carried an exchange; `answered` once a response byte arrived."""

    __slots__ = (
        "_buffer", "_chunks", "_head", "_left", "_pool", "_repeated", "_to_head", "_transport", "answered",
        "fresh", "sink",
    )  # fmt: skip

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._transport: asyncio.Transport | None = None
        self._buffer = b""
        self._head: ResponseHead | None = None
        self._repeated: Repeated[ResponseHead] | None = None  # the head of the answer before
        self._chunks: Chunks | None = None
        self._left: int | None = 0
        self._to_head = False
        self.sink: Sink | None = None
        self.answered = False
        self.fresh = True

    # --- towards the replica ---

    def ask(self, head: bytes, body: bytes, sink: Sink) -> None:
        """Starts an exchange with a whole request."""
        self.sink = sink
        self.answered = False
        self._to_head = False
        self._pool.depart(self, sink, head, body)

    def send(self, data: bytes, sink: Sink, *, to_head: bool = False) -> None:
        """Starts an exchange with the request's head and as much of its body as there is; `write` goes on."""
        self.sink = sink
        self.answered = False
        self._to_head = to_head
        self.write(data)

    def write(self, *pieces: bytes) -> None:
        if self._transport is not None:
            if len(pieces) == 1:
                self._transport.write(pieces[0])
            else:
                self._transport.writelines(pieces)

    def pause(self) -> None:
        if self._transport is not None:
            self._transport.pause_reading()

    def resume(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def close(self) -> None:
        """Ends the connection at once: the engine sees it and cancels. The sink hears nothing more."""
        self.sink = None
        if self._transport is not None:
            self._transport.abort()

    # --- from the replica ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = wire = cast(asyncio.Transport, transport)
        wire.set_write_buffer_limits(high=limits.WRITE_BUFFER_HIGH_BYTES)

    def data_received(self, data: bytes) -> None:
        sink = self.sink
        if sink is None:
            self.close()  # nobody asked: this connection is not to be trusted with an exchange
            return
        self.answered = True
        try:
            if self._head is None:
                if self._repeated is not None and self._take_again(self._repeated, data, sink):
                    return
                rest = self._take_head(data, sink)
                if rest is None or self.sink is not sink:
                    return
                data = rest
            chunks = self._chunks
            if chunks is None:
                self._take_body(data, sink)
            else:
                payload = chunks.feed(data)
                if payload:
                    sink.upstream_body(payload)
                if chunks.done and self.sink is sink:
                    self._complete(sink, clean=not chunks.rest)
        except FramingError as e:
            self.close()
            sink.upstream_lost(e.code)

    def _take_again(self, repeated: Repeated[ResponseHead], data: bytes, sink: Sink) -> bool:
        """Takes a whole answer whose head is that of the one before; False where it is anything else."""
        if self._buffer or self._to_head:
            return False
        head = repeated.head
        body_at = repeated.again(data)
        if not body_at or len(data) - body_at != head.length:
            return False
        self._head = head
        sink.upstream_head(head)
        if self.sink is sink:
            if head.length:
                sink.upstream_body(data[body_at:])
            if self.sink is sink:
                self._complete(sink, clean=True)
        return True

    def _take_head(self, data: bytes, sink: Sink) -> bytes | None:
        """The bytes after the head, or None while it is incomplete."""
        if self._buffer:
            data = self._buffer + data
        while True:
            end = data.find(b"\r\n\r\n")
            if end < 0:
                if len(data) > limits.HEADER_BYTES_MAX:
                    raise FramingError(502, "upstream.malformed", "the replica's header is too large")
                self._buffer = data
                return None
            head = response_head(data, end + 2, to_head=self._to_head)
            self._repeated = (
                Repeated.of(head, data, end + 2) if head.status == 200 and not self._to_head else None
            )
            data = data[end + 4 :]
            if head.status >= 200:
                break
            if head.status == 101:
                raise FramingError(502, "upstream.malformed", "the replica switched protocols unasked")
        self._buffer = b""
        self._head = head
        self._left = head.length
        self._chunks = Chunks() if head.chunked else None
        sink.upstream_head(head)
        return data

    def _take_body(self, data: bytes, sink: Sink) -> None:
        """Of a body with a length, or of one that the close ends."""
        if self._left is None:
            if data:
                sink.upstream_body(data)
        else:
            extra = len(data) > self._left
            if extra:
                data = data[: self._left]
            self._left -= len(data)
            if data:
                sink.upstream_body(data)
            if not self._left and self.sink is sink:
                self._complete(sink, clean=not extra)

    def _complete(self, sink: Sink, *, clean: bool) -> None:
        head = self._head
        self.sink = None
        self._head = None
        self._chunks = None
        self.fresh = False
        if clean and head is not None and head.keep_alive:
            self._pool.give_back(self)
        else:
            self.close()
        sink.upstream_end()

    def eof_received(self) -> bool:
        sink = self.sink
        if sink is not None and self._head is not None and self._left is None and self._chunks is None:
            self._complete(sink, clean=False)
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._pool.gone(self)
        sink, self.sink = self.sink, None
        if sink is not None:
            sink.upstream_lost("reset")

    def pause_writing(self) -> None:
        if self.sink is not None:
            self.sink.upstream_full(True)

    def resume_writing(self) -> None:
        if self.sink is not None:
            self.sink.upstream_full(False)
