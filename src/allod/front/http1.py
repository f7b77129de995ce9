"""HTTP/1.1 framing, strict: what is ambiguous is refused, never repaired.

Pure functions over bytes: `request_head` and `response_head` read one head; chunked bodies are `chunks`.
Two readers of the same bytes must never see two different messages (request smuggling, RFC 9112 §11.2), so
each of these ends the connection: Content-Length together with Transfer-Encoding, a repeated
Content-Length, a transfer coding other than `chunked`, a folded line, a bare CR or LF, white space before a
colon, a control character.
"""

from __future__ import annotations

import re
from typing import Final, Generic, TypeVar

from allod import limits

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]"
FIELDS = rb"(?:" + _TOKEN + rb"++:[^\x00-\x08\x0a-\x1f\x7f]*+\r\n)*+"
_REQUEST: Final = re.compile(rb"(" + _TOKEN + rb"++) ([\x21-\x7e]++) HTTP/1\.([01])\r\n" + FIELDS)
_RESPONSE: Final = re.compile(
    rb"HTTP/1\.([01]) ([1-5][0-9]{2})(?: [^\x00-\x08\x0a-\x1f\x7f]*+)?\r\n" + FIELDS
)
_VERSION: Final = re.compile(rb"[^\r\n]* HTTP/[0-9]+(?:\.[0-9]+)?\r\n")
BARE: Final = re.compile(rb"(?<!\r)\n|\r(?!\n|\Z)|\x00")
_DIGITS: Final = re.compile(rb"[0-9]{1,18}")

_LENGTH: Final = re.compile(rb"\r\n[Cc]ontent-[Ll]ength: ([0-9]{1,18})(?=\r\n)")

_REPEATED_BYTES_MAX = 4096

# Fields that mean something here: two of them would let two readers choose differently.
_ONCE: Final = frozenset(
    {
        b"host",
        b"content-length",
        b"transfer-encoding",
        b"content-type",
        b"authorization",
        b"x-api-key",
        b"expect",
    }
)
HOP_BY_HOP: Final = frozenset(
    {
        b"connection", b"keep-alive", b"proxy-connection", b"proxy-authenticate", b"proxy-authorization",
        b"te", b"trailer", b"transfer-encoding", b"upgrade",
    }
)  # fmt: skip


class FramingError(Exception):
    """The bytes are not one unambiguous HTTP message. `status` is what the sender gets before the close."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message


class RequestHead:
    """One request head. `fields` has lower-case names; of a repeated field it has the last value."""

    __slots__ = (
        "chunked",
        "expects",
        "fields",
        "keep_alive",
        "length",
        "lines",
        "method",
        "minor",
        "path",
        "query",
    )

    def __init__(
        self, method: bytes, target: bytes, minor: int, lines: list[bytes], fields: dict[bytes, bytes]
    ) -> None:
        self.method = method
        self.path, _, self.query = target.partition(b"?")
        self.minor = minor
        self.lines = lines  # "Name: value" as received
        self.fields = fields
        self.length = 0  # bytes of body; unknown (0) while `chunked`
        self.chunked = False
        self.expects = False
        self.keep_alive = (
            minor == 1
        )  # HTTP/1.0's own keep-alive is not offered: its answers end with the close


class ResponseHead:
    """One response head. `length` is None where the body ends with its chunks or with the connection."""

    __slots__ = ("chunked", "fields", "keep_alive", "length", "lines", "status")

    def __init__(self, status: int, lines: list[bytes], fields: dict[bytes, bytes]) -> None:
        self.status = status
        self.lines = lines
        self.fields = fields
        self.length: int | None = None
        self.chunked = False
        self.keep_alive = True


H = TypeVar("H", RequestHead, ResponseHead)


class Repeated(Generic[H]):
    """The last head of a connection, to be known again without reading it again: clients and engines repeat
    all of it but the Content-Length, and bytes that were read strictly once mean the same the next time.
    """

    __slots__ = ("_after", "_before", "_length_at", "head")

    def __init__(self, head: H, before: bytes, after: bytes) -> None:
        self.head: H = head
        self._before = before  # up to the digits of its length
        self._length_at = len(before)
        self._after = after  # from there to the empty line

    @classmethod
    def of(cls, head: H, data: bytes, end: int) -> Repeated[H] | None:
        """`head` was read from `data[:end]`. None where it states no length, or is unusually large."""
        line = _LENGTH.search(data, 0, end)
        if line is None or end > _REPEATED_BYTES_MAX:
            return None
        return cls(head, data[: line.start(1)], data[line.end(1) : end + 2])

    def again(self, data: bytes) -> int:
        """Where the body starts, if `data` begins with this head; `head.length` is then what it says now.
        Otherwise 0.
        """
        at = self._length_at
        end = data.find(b"\r", at, at + 19)  # no length has more than 18 digits
        digits = data[at:end]
        if end < 0 or not digits.isdigit():
            return 0
        if not (data.startswith(self._before) and data.startswith(self._after, end)):
            return 0
        self.head.length = int(digits)
        return end + len(self._after)


def incomplete_head(data: bytes) -> None:
    """Called while the empty line has not arrived. Raises FramingError where no valid head can come of it."""
    if len(data) > limits.HEADER_BYTES_MAX:
        raise FramingError(
            431, "http.headers-too-large", f"the header exceeds {limits.HEADER_BYTES_MAX} bytes"
        )
    if BARE.search(data):
        raise FramingError(400, "http.malformed", "the header holds a bare CR, a bare LF or a NUL")


def request_head(data: bytes, end: int) -> RequestHead:
    """The head in `data[:end]`, where `end` is just after the last field's CRLF. Raises FramingError."""
    if end > limits.HEADER_BYTES_MAX:
        raise FramingError(
            431, "http.headers-too-large", f"the header exceeds {limits.HEADER_BYTES_MAX} bytes"
        )
    match = _REQUEST.fullmatch(data, 0, end)
    if match is None:
        version = _VERSION.match(data, 0, end)
        if version and not version[0].endswith((b" HTTP/1.0\r\n", b" HTTP/1.1\r\n")):
            raise FramingError(505, "http.version", "only HTTP/1.0 and HTTP/1.1 are spoken here")
        raise FramingError(400, "http.malformed", "the request line or a header field is malformed")
    method, target, minor = match.groups()
    lines = data[match.end(3) + 2 : end].split(b"\r\n")
    fields = _fields(lines)
    head = RequestHead(method, _origin_form(target), 1 if minor == b"1" else 0, lines[:-1], fields)
    _frame_request(head)
    return head


def response_head(data: bytes, end: int, *, to_head: bool = False) -> ResponseHead:
    """The head in `data[:end]`; `to_head` where the request was HEAD. Raises FramingError."""
    match = _RESPONSE.fullmatch(data, 0, end)
    if match is None:
        raise FramingError(
            502, "upstream.malformed", "the replica's status line or a header field is malformed"
        )
    minor, status = match.groups()
    first = data.index(b"\r\n") + 2
    lines = data[first:end].split(b"\r\n")
    fields = _fields(lines)
    head = ResponseHead(int(status), lines[:-1], fields)
    connection = fields.get(b"connection", b"").lower()
    head.keep_alive = b"close" not in connection and (minor == b"1" or b"keep-alive" in connection)
    length = fields.get(b"content-length")
    coding = fields.get(b"transfer-encoding")
    if coding is not None:
        if coding.lower() != b"chunked" or length is not None:
            raise FramingError(502, "upstream.malformed", "the replica's answer has an ambiguous length")
        head.chunked = True
    elif length is not None:
        if not _DIGITS.fullmatch(length):
            raise FramingError(502, "upstream.malformed", "the replica's Content-Length is not a number")
        head.length = int(length)
    else:
        head.keep_alive = False  # delimited by the close
    if to_head or head.status in (204, 304) or head.status < 200:
        head.length, head.chunked = 0, False
        head.keep_alive = b"close" not in connection and minor == b"1"
    return head


def _too_large() -> FramingError:
    return FramingError(413, "body.too-large", f"the body exceeds {limits.BODY_BYTES_MAX} bytes")


def _fields(lines: list[bytes]) -> dict[bytes, bytes]:
    """`lines` ends with the empty piece after the last CRLF."""
    fields: dict[bytes, bytes] = {}
    count = len(lines) - 1
    if count > limits.HEADER_COUNT_MAX:
        raise FramingError(431, "http.too-many-headers", f"more than {limits.HEADER_COUNT_MAX} header fields")
    for i in range(count):
        name, _, value = lines[i].partition(b":")
        fields[name.lower()] = value.strip(b" \t")
    if len(fields) != count:
        _refuse_repeated(lines)
    return fields


def _refuse_repeated(lines: list[bytes]) -> None:
    seen = set()
    for line in lines[:-1]:
        name = line.partition(b":")[0].lower()
        if name in seen and (name in _ONCE or name.startswith(b"allod-")):
            raise FramingError(
                400, "http.repeated-header", f"the header field {name.decode()} is given twice"
            )
        seen.add(name)


def _origin_form(target: bytes) -> bytes:
    if len(target) > limits.URI_BYTES_MAX:
        raise FramingError(414, "http.uri-too-long", f"the target exceeds {limits.URI_BYTES_MAX} bytes")
    if not target.startswith(b"/"):  # absolute form (RFC 9112 §3.2.2); the authority is ours whatever it says
        scheme, _, rest = target.partition(b"://")
        if scheme.lower() not in (b"http", b"https") or not rest:
            raise FramingError(400, "http.target", "the request target is neither a path nor an http URL")
        target = b"/" + rest.partition(b"/")[2]
    return target


def _frame_request(head: RequestHead) -> None:
    fields = head.fields
    if b"host" not in fields and head.minor:
        raise FramingError(400, "http.no-host", "HTTP/1.1 asks for a Host header field")
    length = fields.get(b"content-length")
    coding = fields.get(b"transfer-encoding")
    if coding is not None:
        if length is not None or not head.minor:
            raise FramingError(
                400, "http.ambiguous-length", "Transfer-Encoding contradicts the rest of the head"
            )
        if coding.lower() != b"chunked":
            raise FramingError(501, "http.transfer-coding", "only the transfer coding 'chunked' is known")
        head.chunked = True
    elif length is not None:
        if not _DIGITS.fullmatch(length):
            raise FramingError(400, "http.content-length", "Content-Length is not one decimal number")
        head.length = int(length)
        if head.length > limits.BODY_BYTES_MAX:
            raise _too_large()
    connection = fields.get(b"connection")
    if connection is not None:
        head.keep_alive = head.keep_alive and b"close" not in connection.lower()
    expect = fields.get(b"expect")
    if expect is not None:
        if expect.lower() != b"100-continue":
            raise FramingError(417, "http.expectation", "only 'Expect: 100-continue' can be met")
        head.expects = head.minor == 1
