"""Everything that is not a hot route goes to the control process, as it came, over its Unix socket.

Bodies stream both ways with back-pressure. Internal header fields from outside are removed in every
spelling; the caller that the front has authenticated is put in their place, and the key itself goes no
further. So are fields that claim who asked from where: control is told the address that the connection has.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from allod import limits
from allod.front.auth import Identity
from allod.front.chunks import LAST_CHUNK, chunk
from allod.front.http1 import HOP_BY_HOP, RequestHead, ResponseHead
from allod.front.problems import Problem, reason
from allod.front.upstream import Upstream

if TYPE_CHECKING:
    from allod.front.client import ClientConnection
    from allod.front.worker import Worker

_OURS = HOP_BY_HOP | {b"content-length", b"expect"}
_CLAIMS = frozenset(
    b"x-forwarded-" + what for what in (b"for", b"proto", b"host", b"port", b"prefix", b"server")
) | {b"forwarded", b"x-real-ip"}
# What Connection names ends here, but not what a request is and what its data is said to be.
_KEPT = frozenset({b"host", b"content-type", b"allod-data-class", b"allod-data-categories"})
_CREDENTIALS = frozenset({b"authorization", b"x-api-key"})
_INTERNAL = b"allod-internal-"


class Handoff:
    """One exchange with the control process, on a connection of its own: a request body can not be sent
    twice.
    """

    __slots__ = (
        "_begun", "_bodiless", "_chunked", "_client", "_head", "_identity", "_over", "_peer",
        "_pending", "_secure", "_sent_whole", "_upstream", "_worker",
    )  # fmt: skip

    def __init__(
        self,
        worker: Worker,
        client: ClientConnection,
        head: RequestHead,
        identity: Identity | None,
        *,
        secure: bool,
        peer: str,
    ) -> None:
        """`peer` is the address of the other end of the connection; empty where it has none."""
        self._worker = worker
        self._client = client
        self._head = head
        self._identity = identity
        self._secure = secure
        self._peer = peer
        self._upstream: Upstream | None = None
        self._pending: list[bytes] = []
        self._sent_whole = False
        self._begun = False  # the answer's head has gone to the client
        self._chunked = False  # the answer goes to the client in chunks
        self._bodiless = False
        self._over = False

    def start(self, body: bytes, *, whole: bool) -> None:
        self._pending = [body] if body else []
        self._sent_whole = whole
        self._worker.control.connect(self._connected)

    def body(self, piece: bytes, *, done: bool) -> None:
        """More of the request's body."""
        self._sent_whole = done
        if self._upstream is None:
            if piece:
                self._pending.append(piece)
        else:
            self._upstream.write(self._framed(piece, done=done))
        if done:
            self._client.deadline = self._worker.now() + limits.ENGINE_FIRST_BYTE_TIMEOUT_S

    def _connected(self, connection: Upstream | None) -> None:
        if self._over:
            if connection is not None:
                connection.close()
            return
        if connection is None:
            self._over = True
            self._client.problem(_unreachable())
            return
        self._upstream = connection
        body = self._framed(b"".join(self._pending), done=self._sent_whole)
        self._pending = []
        connection.send(self._request() + body, self, to_head=self._head.method == b"HEAD")
        if self._sent_whole:
            self._client.deadline = self._worker.now() + limits.ENGINE_FIRST_BYTE_TIMEOUT_S
        else:
            self._client.deadline = self._worker.now() + self._worker.timeouts.body_idle_s
            if self._head.expects:
                self._client.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self._client.resume_reading()

    def _framed(self, piece: bytes, *, done: bool) -> bytes:
        if not self._head.chunked:
            return piece
        return (chunk(piece) if piece else b"") + (LAST_CHUNK if done else b"")

    def _request(self) -> bytes:
        head = self._head
        target = head.path + (b"?" + head.query if head.query else b"")
        lines = [b"%b %b HTTP/1.1" % (head.method, target), b"connection: close"]
        dropped = set(_OURS)
        dropped.update(w.strip().lower() for w in head.fields.get(b"connection", b"").split(b","))
        dropped -= _KEPT
        if self._identity is not None:
            dropped |= _CREDENTIALS
        for line in head.lines:
            name = line.partition(b":")[0].lower()
            read_as = name.replace(b"_", b"-")  # by whoever maps fields to variables
            if name in dropped or read_as in _CLAIMS or read_as.startswith(_INTERNAL):
                continue
            lines.append(line)
        if head.chunked:
            lines.append(b"transfer-encoding: chunked")
        elif b"content-length" in head.fields:
            lines.append(b"content-length: %d" % head.length)
        lines.append(b"x-forwarded-proto: " + (b"https" if self._secure else b"http"))
        if self._peer:
            lines.append(b"x-forwarded-for: " + self._peer.encode())
        if self._identity is not None:
            lines.append(b"allod-internal-caller: " + self._identity.header)
        return b"\r\n".join(lines) + b"\r\n\r\n"

    # --- the answer (upstream.Sink) ---

    def upstream_head(self, head: ResponseHead) -> None:
        client = self._client
        self._begun = True
        self._bodiless = self._head.method == b"HEAD" or head.status in (204, 304)
        lines = [b"HTTP/1.1 %d %b" % (head.status, reason(head.status))]
        dropped = set(HOP_BY_HOP)
        if not self._bodiless:
            dropped.add(b"content-length")
        dropped.update(w.strip().lower() for w in head.fields.get(b"connection", b"").split(b","))
        for line in head.lines:
            name = line.partition(b":")[0].lower()
            if name not in dropped and not name.startswith(_INTERNAL):
                lines.append(line)
        if not self._bodiless and head.length is not None:
            lines.append(b"content-length: %d" % head.length)
        elif not self._bodiless:
            if client.minor:
                self._chunked = True
                lines.append(b"transfer-encoding: chunked")
            else:
                client.keeps = False
        if not self._sent_whole:
            client.keeps = False
        if not client.keeps:
            lines.append(b"connection: close")
        client.write(b"\r\n".join(lines) + b"\r\n\r\n")
        client.deadline = self._worker.now() + limits.ENGINE_FIRST_BYTE_TIMEOUT_S

    def upstream_body(self, data: bytes) -> None:
        self._client.deadline = self._worker.now() + limits.ENGINE_FIRST_BYTE_TIMEOUT_S
        self._client.write(chunk(data) if self._chunked else data)

    def upstream_end(self) -> None:
        self._over = True
        self._upstream = None
        if self._chunked:
            self._client.write(LAST_CHUNK)
        self._client.finished()

    def upstream_lost(self, reason: str) -> None:
        self._over = True
        self._upstream = None
        if self._begun:
            self._client.abort()
        else:
            self._client.problem(_unreachable())

    def upstream_full(self, full: bool) -> None:
        if full:
            self._client.pause_reading()
        else:
            self._client.resume_reading()

    # --- the client ---

    def client_full(self, full: bool) -> None:
        if self._upstream is not None:
            if full:
                self._upstream.pause()
            else:
                self._upstream.resume()

    def cancelled(self) -> None:
        self._over = True
        upstream, self._upstream = self._upstream, None
        if upstream is not None:
            upstream.close()

    def timed_out(self) -> None:
        upstream = self._upstream
        self.cancelled()
        if upstream is not None:
            self.upstream_lost("timeout")


def _unreachable() -> Problem:
    return Problem(
        503,
        "control.unreachable",
        "the control process does not answer; chat, embeddings and OCR go on without it",
        hint="Try again shortly; it is restarted by itself",
        retry_after_s=1,
    )
