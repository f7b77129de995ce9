"""The public side: one connection of a client, its requests in order, one at a time.

Pipelined requests wait for their turn. A client that sends nothing, sends slowly or does not read is
bounded by a deadline that the worker's sweep looks at: no timer per request. A client that closes its
sending side has left: what runs for it is cancelled.
"""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Final, cast

from allod import limits
from allod.front.exchange import Exchange
from allod.front.handoff import Handoff
from allod.front.http1 import FramingError, Repeated, RequestHead, incomplete_head, request_head
from allod.front.intake import Intake
from allod.front.problems import Dialect, Problem, dialect_of, reason
from allod.front.terms import HOT, Terms

if TYPE_CHECKING:
    from allod.front.worker import Worker

_HEAD, _BODY, _BUSY, _LEAVING = range(4)
_NEVER: Final = float("inf")
_LINGER_S = 2.0  # after an early answer the client may still be sending; closing at once could eat the answer
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


class ClientConnection(asyncio.Protocol):
    """`inner` connections come from the control process over a Unix socket: its internal headers are
    believed.
    """

    __slots__ = (
        "_body", "_buffer", "_exchange", "_full", "_handoff", "_head", "_inner", "_intake", "_paused",
        "_repeated", "_stage", "_terms", "_transport", "_unread", "_worker", "deadline", "dialect", "keeps",
        "minor",
    )  # fmt: skip

    def __init__(self, worker: Worker, *, inner: bool) -> None:
        self._worker = worker
        self._inner = inner
        self._transport: asyncio.Transport | None = None
        self._stage = _HEAD
        self._buffer = b""
        self._head: RequestHead | None = None
        self._repeated: Repeated[RequestHead] | None = None  # the last head on a hot route,
        self._terms: Terms | None = None  # and what it settled
        self._body: list[bytes] = []
        self._intake: Intake | None = None  # of a body that did not come whole with its head
        self._unread = False  # a part of the request's body has not been taken off the connection
        self._exchange: Exchange | None = None
        self._handoff: Handoff | None = None
        self._paused = False  # reading
        self._full = False  # the client does not read as fast as it is written to
        self.deadline = _NEVER
        self.dialect: Dialect = "openai"
        self.keeps = True
        self.minor = 1

    # --- the transport ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = wire = cast(asyncio.Transport, transport)
        wire.set_write_buffer_limits(high=limits.WRITE_BUFFER_HIGH_BYTES)
        sock = wire.get_extra_info("socket")
        if sock is not None and sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        worker = self._worker
        self.deadline = worker.now() + worker.timeouts.keepalive_idle_s
        worker.connections.add(self)
        if len(worker.connections) > worker.timeouts.connections_max:
            self.keeps = False
            self.problem(
                Problem(
                    503,
                    "front.connections",
                    "this worker has no room for another connection",
                    retry_after_s=1,
                )
            )

    def data_received(self, data: bytes) -> None:
        if self._stage == _HEAD:
            if self._buffer:
                self._read_head(self._buffer + data)
            elif self._repeated is None or not self._read_again(self._repeated, data):
                self._read_head(data)
        elif self._stage == _BODY:
            self._read_body(data)
        elif self._stage == _BUSY:
            self._buffer += data
            if len(self._buffer) > limits.PIPELINED_BYTES_MAX:
                self.pause_reading()

    def eof_received(self) -> bool:
        if self._stage == _BUSY:
            if self._exchange is not None and self._exchange.ended:
                self.keeps = False
                return True  # the answer is complete and only waits for its receipt
            self._cancel()
            self.problem(
                Problem(
                    400, "client.half-closed", "the sending side was closed before the answer", close=True
                )
            )
        elif self._stage == _BODY or (self._stage == _HEAD and self._buffer):
            self._cancel()
            self.problem(
                Problem(400, "http.cut-short", "the connection ended inside the request", close=True)
            )
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._worker.connections.discard(self)
        self._cancel()
        if self._intake is not None:
            self._intake.release()
            self._intake = None

    def pause_writing(self) -> None:
        self._full = True
        self.deadline = self._worker.now() + self._worker.timeouts.client_stall_s
        if self._exchange is not None:
            self._exchange.client_full(True)
        if self._handoff is not None:
            self._handoff.client_full(True)

    def resume_writing(self) -> None:
        self._full = False
        self.deadline = self._worker.now() + limits.ENGINE_IDLE_TIMEOUT_S
        if self._exchange is not None:
            self._exchange.client_full(False)
        if self._handoff is not None:
            self._handoff.client_full(False)

    # --- reading ---

    def _read_again(self, repeated: Repeated[RequestHead], data: bytes) -> bool:
        """Takes a whole request whose head is that of the one before; False where it is anything else."""
        head = repeated.head
        body_at = repeated.again(data)
        if not body_at or len(data) - body_at != head.length:
            return False
        self._head = head
        self._unread = False
        self.keeps = head.keep_alive and not self._worker.draining
        try:
            self._start(head, data[body_at:])
        except Problem as problem:
            self._exchange = None
            self.problem(problem)
        return True

    def _read_head(self, data: bytes) -> None:
        if data[:2] == b"\r\n":
            data = data[2:]  # RFC 9112 §2.2: an empty line before a request line
        end = data.find(b"\r\n\r\n")
        try:
            if end < 0:
                if not self._buffer and data:
                    self.deadline = self._worker.now() + self._worker.timeouts.header_s
                self._buffer = data
                incomplete_head(data)
                return
            head = request_head(data, end + 2)
        except FramingError as e:
            self._buffer = b""
            self.problem(Problem(e.status, e.code, e.message, close=True))
            return
        self._head = head
        self._repeated = None
        self.minor = head.minor
        self.keeps = head.keep_alive and not self._worker.draining
        rest = data[end + 4 :]
        if head.chunked or head.length > len(rest):
            self._unread = True
            self._buffer = rest
            body = None
        else:
            self._unread = False
            body = rest[: head.length]
            self._buffer = rest[head.length :]
        try:
            if self._dispatch(head, body):
                self._repeated = Repeated.of(head, data, end + 2)
        except Problem as problem:
            self._exchange = None
            self.problem(problem)

    def _dispatch(self, head: RequestHead, body: bytes | None) -> bool:
        """`body` is None while it has not arrived completely. True for a hot route."""
        worker = self._worker
        self.dialect = dialect_of(head.path, head.fields.get(b"user-agent", b""))
        route = HOT.get(head.path)
        if route is None or (self.dialect == "mistral" and route.kind != "ocr"):
            if head.path in (b"/healthz", b"/readyz") and not self._inner:
                self._health(head)
            else:
                self._hand_over(head, body)
            return False
        world = worker.world
        if world is None:
            raise worker.no_snapshot()
        self._terms = Terms(route, head, world, worker.clock.now_us(), inner=self._inner)
        if body is not None:
            self._start(head, body)
        else:
            self._await_body(head)
        return True

    def _await_body(self, head: RequestHead) -> None:
        self._intake = Intake(self._worker, head, held=True)
        self._stage = _BODY
        rest, self._buffer = self._buffer, b""
        if head.expects and not rest:
            self.write(_CONTINUE)
        self._read_body(rest)

    def _read_body(self, data: bytes) -> None:
        intake = self._intake
        assert intake is not None
        try:
            piece, rest, done = intake.take(data)
        except FramingError as e:
            self._cancel()
            self.problem(Problem(e.status, e.code, e.message, close=True))
            return
        self.deadline = intake.deadline()
        if done:
            self._unread = False
            self._buffer = rest
        if self._handoff is not None:
            if done:
                self._stage = _BUSY
            self._handoff.body(piece, done=done)
            return
        if piece:
            self._body.append(piece)
        if not done:
            return
        pieces, self._body = self._body, []
        head = self._head
        assert head is not None
        try:
            self._start(head, b"".join(pieces))
        except Problem as problem:
            self._exchange = None
            self.problem(problem)

    def _start(self, head: RequestHead, body: bytes) -> None:
        worker, terms = self._worker, self._terms
        world, now_us = worker.world, worker.clock.now_us()
        assert world is not None
        assert terms is not None
        if world is not terms.world or now_us >= terms.identity.expires_us:
            # keys or rules have changed since the head was read
            self._terms = terms = Terms(terms.route, head, world, now_us, inner=self._inner)
        self._exchange = exchange = Exchange(worker, self, terms)
        self._stage = _BUSY
        self.deadline = _NEVER
        exchange.start(body, now_us)

    # --- what is not a hot route ---

    def _hand_over(self, head: RequestHead, body: bytes | None) -> None:
        worker = self._worker
        if self._inner:
            raise Problem(404, "inner.route", "the internal socket carries hot routes only")
        identity = None
        if worker.world is not None:
            identity = worker.world.keyring.identify(head.fields, worker.clock.now_us())
        elif b"authorization" in head.fields or b"x-api-key" in head.fields:
            raise worker.no_snapshot()
        secure = self._transport is not None and self._transport.get_extra_info("sslcontext") is not None
        peer = self._transport.get_extra_info("peername") if self._transport is not None else None
        address = str(peer[0]) if isinstance(peer, tuple) else ""
        self._handoff = Handoff(worker, self, head, identity, secure=secure, peer=address)
        self.deadline = _NEVER
        if body is not None:
            self._stage = _BUSY
            self._handoff.start(body, whole=True)
            return
        self._intake = Intake(worker, head, held=False)
        self._stage = _BODY
        rest, self._buffer = self._buffer, b""
        self.pause_reading()
        self._handoff.start(b"", whole=False)
        if rest:
            self._read_body(rest)

    def _health(self, head: RequestHead) -> None:
        if head.path == b"/healthz":
            status, body = 200, b'{"live":true}'
        else:
            status, body = self._worker.readiness()
        if head.method not in (b"GET", b"HEAD"):
            raise Problem(405, "http.method", "this is asked with GET")
        self._answer(status, body)

    # --- writing ---

    def write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    def problem(self, problem: Problem, *, receipt: str = "", data_class: str = "") -> None:
        """Answers with a problem, and goes on to the next request or closes."""
        if self._transport is None:
            return
        if problem.close or self._unread:
            self.keeps = False
        self._answer(problem.status, problem.body(self.dialect), problem.fields(receipt, data_class))

    def _answer(self, status: int, body: bytes, fields: bytes = b"") -> None:
        if not self.keeps:
            fields += b"connection: close\r\n"
        head = self._head
        with_body = head is None or head.method != b"HEAD"
        self.write(
            b"HTTP/1.1 %d %b\r\ncontent-type: application/json\r\n%bcontent-length: %d\r\n\r\n%b"
            % (status, reason(status), fields, len(body), body if with_body else b"")
        )
        self.finished()

    def finished(self) -> None:
        """The answer is written: the next request, or the end of the connection."""
        self._exchange = None
        self._handoff = None
        self._head = None
        if self._intake is not None:
            self._intake.release()
            self._intake = None
        if not self.keeps or self._worker.draining:
            self.leave()
            return
        self._stage = _HEAD
        self.deadline = self._worker.now() + self._worker.timeouts.keepalive_idle_s
        if self._paused:
            self.resume_reading()
        if self._buffer:
            self._worker.loop.call_soon(self._next_pipelined)

    def _next_pipelined(self) -> None:
        if self._stage == _HEAD and self._buffer and self._transport is not None:
            data, self._buffer = self._buffer, b""
            self._read_head(data)

    def leave(self) -> None:
        """Closes after what is written has gone out; a client that is still sending is heard out for a
        moment.
        """
        transport = self._transport
        if transport is None or self._stage == _LEAVING:
            return
        self._stage = _LEAVING
        self._buffer = b""
        if self._unread and transport.can_write_eof() and not transport.is_closing():
            self.deadline = self._worker.now() + _LINGER_S
            self.resume_reading()
            transport.write_eof()
        else:
            self.deadline = self._worker.now() + self._worker.timeouts.client_stall_s
            transport.close()

    def abort(self) -> None:
        """Ends the connection so that the client sees an incomplete answer."""
        if self._transport is not None:
            self._transport.abort()

    def pause_reading(self) -> None:
        if not self._paused and self._transport is not None and not self._transport.is_closing():
            self._paused = True
            if self._intake is not None:
                self._intake.pause()
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        if self._paused and self._transport is not None and not self._transport.is_closing():
            self._paused = False
            if self._intake is not None:
                self._intake.resume()
            self._transport.resume_reading()

    # --- time, and the end ---

    def overdue(self) -> None:
        """The sweep found the deadline passed."""
        if self._full or self._stage == _LEAVING:
            self.abort()
        elif self._stage == _HEAD and not self._buffer:
            self.keeps = False
            self.leave()
        elif self._stage in (_HEAD, _BODY):
            self._cancel()
            self.problem(Problem(408, "http.timeout", "the request did not arrive in time", close=True))
        elif self._exchange is not None:
            self.deadline = _NEVER
            self._exchange.timed_out()
        elif self._handoff is not None:
            self.deadline = _NEVER
            self._handoff.timed_out()

    @property
    def idle(self) -> bool:
        return self._stage == _HEAD and not self._buffer

    def _cancel(self) -> None:
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.cancelled()
        handoff, self._handoff = self._handoff, None
        if handoff is not None:
            handoff.cancelled()
