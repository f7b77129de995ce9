"""Sessions, form tokens and the bound on wrong keys: what lets nobody in."""

from __future__ import annotations

import pytest
from starlette.requests import Request

from allod import limits
from allod.clock import ManualClock
from allod.console.session import Sessions, Throttle, sent_from_here
from allod.console.shell import own_path, source_of
from allod.errors import Denied, NotReady, Usage
from allod.identity.caller import Caller, Role

CALLER = Caller(key_id="k1", organisation="hospital", project="ward", role=Role.DEVELOPER)
KEY = b"0123456789abcdef0123456789abcdef"


def test_a_session_reads_back_until_its_hour_is_over() -> None:
    clock = ManualClock()
    sessions = Sessions(KEY, clock)
    cookie = sessions.issue(CALLER)
    session = sessions.read(cookie)
    assert session is not None
    assert session.caller == CALLER
    clock.advance(limits.CONSOLE_SESSION_S - 1)
    assert sessions.read(cookie) is not None
    clock.advance(1)
    assert sessions.read(cookie) is None


def test_no_changed_byte_of_a_session_is_believed() -> None:
    sessions = Sessions(KEY, ManualClock())
    cookie = sessions.issue(CALLER)
    for place, ch in enumerate(cookie):
        changed = cookie[:place] + ("A" if ch != "A" else "B") + cookie[place + 1 :]
        # the last character of unpadded base64 carries spare bits: the text must match, not only its meaning
        assert sessions.read(changed) is None, place
    for odd in ("", ".", "é.x", "x" * 5_000, cookie + ".", "." + cookie, cookie.partition(".")[0]):
        assert sessions.read(odd) is None
    assert Sessions(KEY[::-1], ManualClock()).read(cookie) is None


def test_a_form_token_is_no_session_and_fits_one_session_only() -> None:
    sessions = Sessions(KEY, ManualClock())
    token = sessions.form_token("a")
    sessions.check_form("a", token, {})
    for nonce, wrong in (("b", token), ("a", ""), ("a", token[:-1]), ("a", "ü")):
        with pytest.raises(Denied, match=r"console\.foreign-form"):
            sessions.check_form(nonce, wrong, {})


@pytest.mark.parametrize(
    ("headers", "here"),
    [
        ({}, True),
        (
            {"sec-fetch-site": "same-origin", "origin": "https://a.example:8443", "host": "a.example:8443"},
            True,
        ),
        ({"origin": "http://a.example", "host": "a.example"}, True),
        ({"sec-fetch-site": "cross-site"}, False),
        ({"sec-fetch-site": "same-site"}, False),
        ({"origin": "null", "host": "a.example"}, False),
        ({"origin": "https://b.example", "host": "a.example"}, False),
        ({"origin": "https://a.example.b.example", "host": "a.example"}, False),
    ],
)
def test_only_a_page_of_the_same_host_may_send_forms(headers: dict[str, str], here: bool) -> None:
    assert sent_from_here(headers) is here


def test_a_short_session_key_is_refused() -> None:
    with pytest.raises(Usage, match=r"console\.weak-session-key"):
        Sessions(b"short", ManualClock())


def test_wrong_keys_are_counted_per_source_and_forgiven_after_the_window() -> None:
    clock = ManualClock()
    throttle = Throttle(clock)
    for _ in range(limits.CONSOLE_LOGIN_FAILURES_MAX):
        throttle.check("a")
        throttle.failed("a")
    with pytest.raises(NotReady) as refused:
        throttle.check("a")
    assert 0 < refused.value.retry_after_s <= limits.CONSOLE_LOGIN_WINDOW_S + 1
    throttle.check("b")
    clock.advance(limits.CONSOLE_LOGIN_WINDOW_S)
    throttle.check("a")


def test_a_flood_of_sources_takes_bounded_memory() -> None:
    throttle = Throttle(ManualClock())
    for n in range(limits.CONSOLE_LOGIN_SOURCES_MAX + 100):
        throttle.failed(str(n))
    assert len(throttle._failures) == limits.CONSOLE_LOGIN_SOURCES_MAX


@pytest.mark.parametrize(
    "path",
    [
        "//evil.example/",
        "https://evil.example",
        "/console//\\evil",
        "/elsewhere",
        "/console/\r\nx: y",
        "",
        "/console/\u202e",
    ],
)
def test_sign_in_sends_nobody_elsewhere(path: str) -> None:
    assert own_path("/console", path) == "/console/"


def test_sign_in_leads_back_to_the_page_that_was_asked_for() -> None:
    assert own_path("/console", "/console/receipts/r-1") == "/console/receipts/r-1"
    assert own_path("", "/receipts/r-1") == "/receipts/r-1"
    assert own_path("", "//evil.example") == "/"


def test_without_an_address_wrong_keys_lock_out_only_their_own_id() -> None:
    behind_a_socket = Request({"type": "http", "client": None})
    assert source_of(behind_a_socket, "allod_k1_secret_part") == "key k1"
    assert source_of(behind_a_socket, "allod_k2_x") != source_of(behind_a_socket, "allod_k1_x")
    assert len(source_of(behind_a_socket, "allod_" + "x" * 10_000 + "_y")) < 100
    assert source_of(behind_a_socket, "") == source_of(behind_a_socket, "nonsense")
    assert source_of(Request({"type": "http", "client": ("192.0.2.1", 9)}), "allod_k1_x") == "192.0.2.1"
