"""Attempts to be somebody else, to reach a forbidden site, and to have two readers see two requests.

Every attempt is real bytes on the public port of a real front worker, beside a model server on a site that
restricted data must never reach. What counts is not the answer alone but what that server has seen.
"""

from __future__ import annotations

import base64
import json
import os
import socket
import time
from collections.abc import Iterator

import pytest
from front_home import KEY, STRICT_KEY, Home, answers, drain, request, talk

from allod.front import body as bodies
from allod.front import splice
from allod.front.client import HOT

CANARY = "canary-5f1c"
MESSAGES = [{"role": "user", "content": CANARY}]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    home = Home(tmp_path_factory.mktemp("front"))
    near, far = home.replica("near"), home.replica("far", site_name="abroad", upstream_model="m")
    home.service("m", near, far, aliases=("other",))
    home.service("far-only", home.replica("far", site_name="abroad", upstream_model="far-only"))
    home.service("same", home.replica("plain", upstream_model="same"))
    for name in ("near", "far", "plain"):
        home.spawn(name)
    home.start()
    yield home
    home.stop()


# --- to be somebody else ----------------------------------------------------------------------------------


def inner(home: Home, caller: str) -> bytes:
    """What control sends a front on behalf of a caller it vouches for."""
    body = json.dumps({"model": "m", "messages": []}).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: front\r\ncontent-type: application/json\r\n"
        f"allod-internal-caller: {caller}\r\nconnection: close\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    with socket.socket(socket.AF_UNIX) as s:
        s.connect(str(home.run / "front-0.sock"))
        s.sendall(head.encode() + body)
        return drain(s)


@pytest.mark.parametrize("spelling", ["Authorization: {}", "x-api-key: {}", "Authorization: Bearer {}"])
def test_the_name_that_control_vouches_for_is_not_a_key_on_the_public_port(home: Home, spelling: str) -> None:
    # A key id is visible to colleagues and stands in logs; with it anyone can write this header's value.
    caller = {"key_id": "develop22222", "organisation": "o1", "project": "p1", "role": "developer"}
    value = base64.urlsafe_b64encode(json.dumps(caller, separators=(",", ":")).encode()).decode()
    assert answers(inner(home, value))[0].status == 200, "control's own call is answered"
    body = json.dumps({"model": "m", "messages": MESSAGES}).encode()
    head = f"{spelling.format(value)}\r\nhost: x\r\ncontent-type: application/json\r\nconnection: close\r\n"
    start = f"POST /v1/chat/completions HTTP/1.1\r\n{head}content-length: {len(body)}\r\n\r\n"
    assert answers(talk(home.port, start.encode() + body))[0].status == 401


def test_a_public_key_is_not_a_caller_on_the_internal_socket(home: Home) -> None:
    assert answers(talk(home.port, request({"model": "m", "messages": []})))[0].status == 200
    assert answers(inner(home, f"Bearer {KEY}"))[0].status == 401


# --- to reach a site that the class forbids ---------------------------------------------------------------

RESTRICTED = {"allod_data_class": "restricted"}
SPELLINGS = {
    "in capitals": {"Allod-Data-Class": "RESTRICTED"},
    "with white space": {"allod-data-class": " \trestricted \t"},
    "beside an invented lower one": {"allod-data-class": "restricted", "allod_data_class": "public"},
    "beside an internal one": {"allod-data-class": "restricted", "allod-internal-data-class": "public"},
    "named for removal by the client": {"allod-data-class": "restricted", "connection": "allod-data-class"},
    "with a floor's project asking for less": {"allod-data-class": "public"},
    "with an empty value": {"allod-data-class": ""},
    "with another method named": {"x-http-method-override": "GET", "allod-data-class": "restricted"},
    "with another path named": {"x-original-url": "/v1/models", "allod-data-class": "restricted"},
    "on the way to a websocket": {
        "upgrade": "websocket",
        "connection": "upgrade",
        "allod-data-class": "restricted",
    },
}


@pytest.mark.parametrize("named", SPELLINGS, ids=str)
@pytest.mark.parametrize("path", [p.decode() for p in HOT if b"chat" in p or b"completions" in p])
def test_no_spelling_of_the_class_carries_restricted_data_abroad(home: Home, named: str, path: str) -> None:
    body = json.dumps({"model": "far-only", "messages": MESSAGES, "prompt": CANARY}).encode()
    fields = "".join(f"{name}: {value}\r\n" for name, value in SPELLINGS[named].items())
    start = (
        f"POST {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {STRICT_KEY}\r\n"
        f"content-type: application/json\r\n{fields}content-length: {len(body)}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", home.port), timeout=10) as s:
        s.sendall(start.encode("latin-1") + body)
        s.settimeout(10)
        answer = s.recv(65536)
    assert answer.split()[1] == b"403", answer
    assert not home.seen("far")


@pytest.mark.parametrize(
    "value",
    ["public,restricted", "réstricted", "3", "restricted;q=1", "\xff", "_value_", "mro"],
)
def test_a_class_that_is_not_exactly_one_of_the_four_is_refused(home: Home, value: str) -> None:
    body = json.dumps({"model": "far-only", "messages": MESSAGES}).encode()
    start = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\n"
        f"connection: close\r\ncontent-type: application/json\r\n"
        f"allod-data-class: {value}\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    assert answers(talk(home.port, start.encode("latin-1") + body))[0].status == 400
    assert not home.seen("far")


@pytest.mark.parametrize(
    "target",
    [
        "//v1/chat/completions", "/v1//chat/completions", "/v1/chat/completions/", "/v1/./chat/completions",
        "/x/../v1/chat/completions", "/v1/chat/%63ompletions", "/V1/chat/completions",
        "/v1/chat/completions;x=1", "/v1/chat/completions%00", "/mistral/v1/chat/completions",
    ],
)  # fmt: skip
def test_a_path_that_only_looks_like_a_hot_route_reaches_no_model(home: Home, target: str) -> None:
    data = request({"model": "far-only", "messages": MESSAGES}, path=target, **RESTRICTED)
    assert answers(talk(home.port, data))[0].status == 503, "handed to control, which does not run here"
    assert not home.seen("far")


@pytest.mark.parametrize(
    "target", ["http://elsewhere.example/v1/chat/completions", "/v1/chat/completions?a=/b"]
)
def test_absolute_targets_and_queries_are_decided_like_the_path(home: Home, target: str) -> None:
    data = request({"model": "far-only", "messages": MESSAGES}, path=target, **RESTRICTED)
    assert answers(talk(home.port, data))[0].status == 403
    assert not home.seen("far")


def test_a_replica_cannot_point_its_socket_at_another_sites(home: Home) -> None:
    # The replica owns the folder of its socket. One that was taken over could put a link there instead.
    data = request({"model": "m", "messages": MESSAGES}, **RESTRICTED)
    path, aside = home.run / "near.sock", home.run / "near.aside"
    assert answers(talk(home.port, data))[0].headers["allod-site"] == "here"
    path.rename(aside)
    os.symlink(home.run / "far.sock", path)
    try:
        for _ in range(16):  # idle connections to the real one are used up first
            burst = [socket.create_connection(("127.0.0.1", home.port), timeout=10) for _ in range(4)]
            for s in burst:
                s.sendall(data)
            for s in burst:
                drain(s)
                s.close()
    finally:
        path.unlink()
        aside.rename(path)
    assert not home.seen("far"), "restricted content went abroad"


# --- to have two readers see two requests -----------------------------------------------------------------

TWICE = {
    "model": b'{"model":"same","model":"m","messages":[]}',
    "model, spelled with an escape": b'{"model":"m","messages":[],"\\u006dodel":"same"}',
    "model, another letter escaped": b'{"mod\\u0065l":"m","messages":[],"model":"same"}',
    "model, spelled with escapes alone": b'{"\\u006d\\u006fdel":"m","m\\u006fdel":"same","messages":[]}',
    "stream, in a body that is edited": b'{"model":"other","stream":true,"messages":[],"stream":false}',
    "an escaped stream": b'{"model":"same","stream":true,"messages":[],"str\\u0065am":false}',
    "stream_options": b'{"model":"same","stream":true,"stream_options":{},"stream_options":null}',
    "messages, in a body that is edited": b'{"model":"other","messages":[],"messages":[]}',
}


@pytest.mark.parametrize("twice", TWICE)
def test_a_key_that_is_given_twice_is_refused(home: Home, twice: str) -> None:
    answer = answers(talk(home.port, request(TWICE[twice])))[0]
    assert (answer.status, answer.code) == (400, "body.repeated-key")


def test_the_same_words_inside_a_prompt_are_only_words(home: Home) -> None:
    text = '{"model":"x","model":"y","stream":1,"messages":2} \\u006dodel \n "model"'
    body = {"model": "same", "messages": [{"role": "user", "content": text}]}
    assert answers(talk(home.port, request(body)))[0].status == 200


@pytest.mark.parametrize("inside", [b"[],", b'"",', b'{"a":0},', b"1,"])
def test_editing_a_large_body_takes_no_time_for_what_lies_inside_it(inside: bytes) -> None:
    count = 500_000 if b":" in inside else (24 << 20) // len(inside)
    body = b'{"model":"other","messages":[],"x":[' + (inside * count)[:-1] + b"]}"
    asked = bodies.read(body, b"application/json")
    started = time.process_time()
    splice.prepare(body, asked, "same")
    assert time.process_time() - started < 1.5, "every other client of the worker has waited as long"


def test_keys_without_number_are_refused(home: Home) -> None:
    many = b'{"model":"other",' + b",".join(b'"%d":0' % n for n in range(5_000)) + b"}"
    assert answers(talk(home.port, request(many)))[0].code == "body.too-many-keys"


@pytest.mark.parametrize("mark", [b"\xef\xbb\xbf", b"\xff\xfe", b"\x00"])
def test_a_body_with_a_mark_before_it_is_not_json(home: Home, mark: bytes) -> None:
    answer = answers(talk(home.port, request(mark + b'{"model":"same","messages":[]}')))[0]
    assert answer.status == 400


@pytest.mark.parametrize("model", ["ｓａｍｅ", "same\x00", "same ", "Same", "s\u0061me\u0301", "../same"])
def test_a_model_is_its_exact_name(home: Home, model: str) -> None:
    assert answers(talk(home.port, request({"model": model, "messages": []})))[0].status == 404


def test_deep_nesting_is_refused_and_hurts_nobody(home: Home) -> None:
    for deep in (b"[" * 200_000, b'{"a":' * 200_000, b"[" * 200_000 + b"]" * 200_000):
        answer = answers(talk(home.port, request(b'{"model":"same","messages":' + deep)))[0]
        assert answer.status == 400
    assert answers(talk(home.port, request({"model": "same", "messages": []})))[0].status == 200


def test_nothing_forbidden_was_ever_seen_abroad(home: Home) -> None:
    assert not home.seen("far")


def test_what_a_client_says_of_its_data_is_not_lost_on_the_way_to_control(home: Home) -> None:
    # A field that Connection names ends at the first hop (RFC 9110 §7.6.1); a data class must not end there.
    home.spawn("control")
    try:
        data = request(
            {"model": "far-only", "messages": MESSAGES},
            path="/mistral/v1/chat/completions",
            close=False,
            allod_data_class="restricted",
            allod_data_categories="health",
            connection="close, Allod-Data-Class, allod-data-categories, x-own",
            x_own="1",
        )
        assert answers(talk(home.port, data))[0].status == 200
        seen = {line.partition(":")[0].lower(): line for line in home.seen("control")[-1]["head"]}
        assert seen["allod-data-class"].endswith("restricted")
        assert seen["allod-data-categories"].endswith("health")
        assert "x-own" not in seen
        assert "authorization" not in seen
    finally:
        home.processes.pop("control").terminate()
        (home.run / "control.sock").unlink()
