"""What a hostile or broken client sends over a raw socket: one clear answer each, and nobody else notices."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from front_home import KEY, Home, answers, drain, request, talk

CHAT = {"model": "m", "messages": []}
SHORT = {"header_s": 0.3, "body_idle_s": 0.3, "keepalive_idle_s": 1.0, "client_stall_s": 1.0, "sweep_s": 0.05,
         "body_grace_s": 1.0, "body_bytes_per_s": 1000.0, "connections_max": 200}  # fmt: skip


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    home = Home(tmp_path_factory.mktemp("front"))
    home.service("m", home.replica("r1"))
    home.spawn("r1")
    home.start(timeouts=SHORT)
    yield home
    home.stop()


def post(extra: str, body: bytes = b"", *, line: str = "POST /v1/chat/completions HTTP/1.1") -> bytes:
    return f"{line}\r\nhost: x\r\nauthorization: Bearer {KEY}\r\n{extra}\r\n".encode("latin-1") + body


INNER = b'{"model":"m","messages":[]}'
SMUGGLING = {
    "both lengths": post(f"content-length: {len(INNER)}\r\ntransfer-encoding: chunked\r\n", INNER),
    "two lengths": post("content-length: 5\r\ncontent-length: 27\r\n", INNER),
    "the same length twice": post("content-length: 27\r\ncontent-length: 27\r\n", INNER),
    "a list of lengths": post("content-length: 27, 27\r\n", INNER),
    "a signed length": post("content-length: +27\r\n", INNER),
    "a negative length": post("content-length: -1\r\n", INNER),
    "a hexadecimal length": post("content-length: 0x1b\r\n", INNER),
    "an underscored length": post("content-length: 2_7\r\n", INNER),
    "white space before the colon": post("content-length : 27\r\n", INNER),
    "a folded field": post("content-length:\r\n 27\r\n", INNER),
    "a bare line feed": post("content-length: 27\nx: y\r\n", INNER),
    "a bare carriage return": post("x: a\rcontent-length: 27\r\n", INNER),
    "a NUL": post("x: a\0b\r\n", INNER),
    "another coding": post("transfer-encoding: gzip, chunked\r\n", b"0\r\n\r\n"),
    "a coding that looks like chunked": post("transfer-encoding: xchunked\r\n", b"0\r\n\r\n"),
    "chunked twice": post("transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n", b"0\r\n\r\n"),
    "chunked with a vertical tab": post("transfer-encoding: \x0bchunked\r\n", b"0\r\n\r\n"),
    "chunked in HTTP/1.0": post(
        "transfer-encoding: chunked\r\n", b"0\r\n\r\n", line="POST /v1/chat/completions HTTP/1.0"
    ),
    "two hosts": post("host: y\r\ncontent-length: 27\r\n", INNER),
    "two keys": post(f"authorization: Bearer {KEY}\r\ncontent-length: 27\r\n", INNER),
    "two data classes": post(
        "allod-data-class: public\r\nallod-data-class: restricted\r\ncontent-length: 27\r\n", INNER
    ),
    "no host": b"POST /v1/chat/completions HTTP/1.1\r\ncontent-length: 0\r\n\r\n",
    "a space in the target": post("", line="POST /v1/chat completions HTTP/1.1"),
    "a tab in the request line": post("", line="POST\t/v1/chat/completions\tHTTP/1.1"),
    "no version": b"GET /healthz\r\n\r\n",
    "HTTP/2.0": post("", line="GET /healthz HTTP/2.0"),
    "HTTP/1.2": post("", line="GET /healthz HTTP/1.2"),
    "an HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "TLS to a plain port": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    "an authority as target": post("", line="CONNECT evil.example:443 HTTP/1.1"),
    "a long target": post("", line="GET /" + "a" * 9000 + " HTTP/1.1"),
    "a large header": post("x: " + "a" * 40_000 + "\r\n"),
    "many fields": post("".join(f"x{n}: y\r\n" for n in range(150))),
    "an endless header": b"GET / HTTP/1.1\r\nx: " + b"a" * 100_000,
}  # fmt: skip
CHUNKS = {
    "a size that is no number": b"zz\r\n",
    "a negative size": b"-1\r\n",
    "a size with a prefix": b"0x5\r\nhello\r\n0\r\n\r\n",
    "a size with a space before it": b" 5\r\nhello\r\n0\r\n\r\n",
    "an immense size": b"ffffffffffffffffff\r\n",
    "an empty size": b"\r\nhello\r\n0\r\n\r\n",
    "more data than the size": b"3\r\nhello\r\n0\r\n\r\n",
    "a bare line feed after the size": b"5\nhello\r\n0\r\n\r\n",
    "an extension with a bare line feed": b"5;a\nb\r\nhello\r\n0\r\n\r\n",
    "an endless extension": b"5;" + b"a" * 1000,
    "a malformed trailer": b"5\r\nhello\r\n0\r\nbad trailer\r\n\r\n",
    "a size beyond the bound": b"fffffff\r\n" + b"x" * 10,
}


@pytest.mark.parametrize("name", SMUGGLING)
def test_an_ambiguous_message_is_refused_and_the_connection_closed(home: Home, name: str) -> None:
    follow_up = b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n"
    before = len(home.seen("r1"))
    found = answers(talk(home.port, SMUGGLING[name] + follow_up))
    assert len(found) == 1, "the bytes after an ambiguous message were read as another request"
    assert 400 <= found[0].status <= 505
    assert found[0].headers["connection"] == "close"
    assert found[0].code.startswith("http.")
    assert len(home.seen("r1")) == before


@pytest.mark.parametrize("name", CHUNKS)
def test_a_malformed_chunked_body_is_refused(home: Home, name: str) -> None:
    data = post("content-type: application/json\r\ntransfer-encoding: chunked\r\n", CHUNKS[name])
    (answer,) = answers(talk(home.port, data))
    assert answer.status in (400, 408, 413)
    assert answer.headers["connection"] == "close"


def test_a_body_beyond_the_bound_is_refused_before_it_is_sent(home: Home) -> None:
    (answer,) = answers(talk(home.port, post(f"content-length: {1 << 40}\r\nexpect: 100-continue\r\n")))
    assert (answer.status, answer.code) == (413, "body.too-large")


def test_a_request_in_any_pieces_is_the_same_request(home: Home) -> None:
    raw = request(CHAT, close=False) + request(CHAT)
    for at in range(1, len(raw), 7):
        with socket.create_connection(("127.0.0.1", home.port), timeout=10) as s:
            s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            s.sendall(raw[:at])
            time.sleep(0.0005)
            s.sendall(raw[at:])
            assert [a.status for a in answers(drain(s))] == [200, 200]


def test_a_chunked_body_byte_by_byte_is_the_same_body(home: Home) -> None:
    chunked = (
        b"".join(b"%x;ext=1\r\n%b\r\n" % (1, INNER[i : i + 1]) for i in range(len(INNER)))
        + b"0\r\nx: y\r\n\r\n"
    )
    raw = post(
        "content-type: application/json\r\ntransfer-encoding: chunked\r\nconnection: close\r\n", chunked
    )
    with socket.create_connection(("127.0.0.1", home.port), timeout=10) as s:
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for i in range(len(raw)):
            s.sendall(raw[i : i + 1])
        assert [a.status for a in answers(drain(s))] == [200]
    assert home.seen("r1")[-1]["body"].encode() == INNER


def test_pipelined_requests_are_answered_in_order(home: Home) -> None:
    names = [f"n{i}" for i in range(40)]
    raw = b"".join(request({**CHAT, "model": n}, close=False) for n in names) + request(CHAT)
    found = answers(talk(home.port, raw))
    assert [a.status for a in found] == [404] * 40 + [200]
    assert [n for n, a in zip(names, found, strict=False) if f"'{n}'".encode() in a.body] == names


def test_a_body_is_asked_for_only_where_it_will_be_read(home: Home) -> None:
    with socket.create_connection(("127.0.0.1", home.port), timeout=5) as s:
        head, _, body = request(CHAT, expect="100-continue").partition(b"\r\n\r\n")
        s.sendall(head + b"\r\n\r\n")
        assert s.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        s.sendall(body)
        assert answers(drain(s))[0].status == 200
    unknown = (
        request(CHAT, key=KEY[:-2] + "zz", expect="100-continue").partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
    )
    assert [a.status for a in answers(talk(home.port, unknown))] == [401]


@pytest.mark.parametrize("sent", [b"POST /v1/chat", request(CHAT)[:-5]])
def test_a_slow_client_is_told_and_let_go(home: Home, sent: bytes) -> None:
    began = time.monotonic()
    (answer,) = answers(talk(home.port, sent))
    assert (answer.status, answer.code) == (408, "http.timeout")
    assert time.monotonic() - began < 4


@pytest.mark.parametrize("framing", ["content-length: 100000", "transfer-encoding: chunked"])
def test_a_body_that_trickles_is_let_go_though_no_gap_is_long(home: Home, framing: str) -> None:
    head = request(CHAT).partition(b"content-length")[0] + f"{framing}\r\n\r\n".encode()
    drop = b"1\r\n \r\n" if "chunked" in framing else b" "
    with socket.create_connection(("127.0.0.1", home.port), timeout=5) as s:
        s.sendall(head)
        began = time.monotonic()
        s.settimeout(0.05)
        seen = b""
        while not seen and time.monotonic() - began < 4:
            s.sendall(drop)
            with contextlib.suppress(TimeoutError):
                seen = s.recv(1000)
        assert SHORT["body_grace_s"] <= time.monotonic() - began < 3
        assert seen.startswith(b"HTTP/1.1 408 ")


def test_slow_headers_do_not_extend_their_own_deadline(home: Home) -> None:
    with socket.create_connection(("127.0.0.1", home.port), timeout=5) as s:
        began = time.monotonic()
        try:
            while time.monotonic() - began < 3:
                s.sendall(b"G")
                time.sleep(0.05)
        except OSError:
            pass
        assert time.monotonic() - began < 2


def test_an_idle_connection_is_closed_in_silence(home: Home) -> None:
    assert talk(home.port, b"") == b""


@pytest.mark.parametrize("sent", [b"POST /v1/chat/completions HTT", request(CHAT)[:-5]])
def test_a_half_closed_request_gets_a_400(home: Home, sent: bytes) -> None:
    (answer,) = answers(talk(home.port, sent, eof=True))
    assert (answer.status, answer.code) == (400, "http.cut-short")


def test_connections_beyond_the_cap_are_told_so(home: Home) -> None:
    held = [socket.create_connection(("127.0.0.1", home.port), timeout=5) for _ in range(200)]
    try:
        with socket.create_connection(("127.0.0.1", home.port), timeout=5) as s:
            (answer,) = answers(drain(s))
            assert (answer.status, answer.headers["retry-after"]) == (503, "1")
    finally:
        for s in held:
            s.close()
    time.sleep(0.1)
    assert answers(talk(home.port, request(CHAT)))[0].status == 200


def test_internal_headers_from_outside_mean_nothing(home: Home) -> None:
    forged = "eyJrZXlfaWQiOiJ4Iiwib3JnYW5pc2F0aW9uIjoibzEiLCJwcm9qZWN0IjoicDEiLCJyb2xlIjoib3duZXIifQ"
    raw = request(CHAT, authorization="", allod_internal_caller=forged)
    assert answers(talk(home.port, raw))[0].status == 401


def test_http_1_0_gets_an_answer_that_ends_with_the_close(home: Home) -> None:
    raw = request({**CHAT, "stream": True}).replace(b"HTTP/1.1", b"HTTP/1.0")
    (answer,) = answers(talk(home.port, raw))
    assert "transfer-encoding" not in answer.headers
    assert answer.body.endswith(b"data: [DONE]\n\n")


def test_tls_carries_the_same_exchange(tmp_path: Path) -> None:
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
         "-days", "1",         "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1",
         "-keyout", str(key), "-out", str(cert)],
        check=True, capture_output=True,
    )  # fmt: skip
    home = Home(tmp_path / "home")
    home.service("m", home.replica("r1"))
    home.spawn("r1")
    try:
        home.start(tls=(cert, key))
        context = ssl.create_default_context(cafile=str(cert))
        with (
            socket.create_connection(("127.0.0.1", home.port), timeout=10) as plain,
            context.wrap_socket(plain, server_hostname="127.0.0.1") as s,
        ):
            s.sendall(request({**CHAT, "stream": True, "script": {"frames": 200}}))
            out = b""
            while piece := s.recv(65536):
                out += piece
        (answer,) = answers(out)
        assert answer.whole
        assert answer.body.count(b"data: ") == 201
        old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
        old.maximum_version = ssl.TLSVersion.TLSv1_1
        with (
            pytest.raises(OSError, match=r"(?i)ssl|reset|eof"),
            socket.create_connection(("127.0.0.1", home.port), timeout=10) as plain,
            old.wrap_socket(plain),
        ):
            pass
    finally:
        home.stop()


def test_after_all_of_this_the_worker_is_well(home: Home) -> None:
    (answer,) = answers(talk(home.port, b"GET /readyz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"))
    assert answer.status == 200
    assert json.loads(answer.body)["ready"] is True
    assert home.front is not None
    assert home.front.poll() is None
