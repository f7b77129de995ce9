"""The console over real HTTP: roles, cookies, forms from elsewhere, headers, bounds."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest
from console_process import console_process

from allod import limits

WARD, ARCHIVE, BANK = (f"r-01KAK{n:021d}" for n in (1, 2, 7))


@pytest.fixture(scope="module")
def console() -> Iterator[str]:
    with console_process() as address:
        yield address


def token_of(page: httpx.Response) -> str:
    found = re.search(r'name="token" value="([^"]+)"', page.text)
    assert found is not None
    return found.group(1)


def visitor(base: str) -> httpx.Client:
    return httpx.Client(base_url=base, trust_env=False)


@contextmanager
def signed_in(base: str, key: str) -> Iterator[httpx.Client]:
    with visitor(base) as client:
        answer = client.post("login", data={"token": token_of(client.get("login")), "key": key})
        assert answer.status_code == 303
        yield client


def test_without_a_session_there_is_only_the_sign_in_page(console: str) -> None:
    with visitor(console) as client:
        for path in (
            "",
            "exchanges",
            f"receipts/{WARD}",
            f"receipts/{WARD}/json",
            "playground",
            "playground/document",
        ):
            answer = client.get(path)
            assert answer.status_code == 303, path
            assert answer.headers["location"].startswith("/console/login"), path
        assert client.post("playground", data={"prompt": "x"}).status_code == 303
        fragment = client.get("exchanges", headers={"hx-request": "true"})
        assert (fragment.status_code, fragment.headers["hx-redirect"]) == (401, "/console/login")


def test_every_answer_carries_the_policy_that_forbids_inline_code(console: str) -> None:
    with signed_in(console, "allod_own_1") as client:
        for path in ("", "login", "nowhere", "static/console.css", f"receipts/{WARD}/cose", "receipts/none"):
            headers = client.get(path).headers
            policy = headers["content-security-policy"]
            assert "default-src 'none'" in policy
            assert "unsafe" not in policy
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["referrer-policy"] == "same-origin"
        assert client.get("").headers["cache-control"] == "no-store"


def test_the_session_cookie_holds_no_key_and_no_script_can_read_it(console: str) -> None:
    with visitor(console) as client:
        form = {"token": token_of(client.get("login")), "key": "allod_own_1"}
        answer = client.post("login", data=form)
        cookie = next(c for c in answer.headers.get_list("set-cookie") if c.startswith("allod_console="))
        assert "allod_own_1" not in str(answer.headers)
        assert "HttpOnly" in cookie
        assert "SameSite=strict" in cookie
        assert "Path=/console" in cookie
        assert f"Max-Age={limits.CONSOLE_SESSION_S}" in cookie


@pytest.mark.parametrize(
    ("key", "status"), [("allod_wrong", 401), ("", 401), ("allod_svc_1", 403), ("\u202e" * 9, 401)]
)
def test_a_wrong_key_or_a_program_s_key_does_not_sign_in(console: str, key: str, status: int) -> None:
    with visitor(console) as client:
        answer = client.post("login", data={"token": token_of(client.get("login")), "key": key})
        assert answer.status_code == status
        assert 'role="alert"' in answer.text
        assert "allod_console=" not in str(answer.headers)


def test_forms_from_elsewhere_are_refused(console: str) -> None:
    with signed_in(console, "allod_own_1") as client, signed_in(console, "allod_own_1") as other:
        token = token_of(client.get("playground"))
        data = {"model": "ministral-3b", "prompt": "x"}
        before = client.get("").text.count('id="x-')
        for headers, form in (
            ({}, data),
            ({}, {**data, "token": token_of(other.get("playground"))}),
            ({"sec-fetch-site": "cross-site"}, {**data, "token": token}),
            ({"origin": "https://evil.example"}, {**data, "token": token}),
        ):
            answer = client.post("playground", data=form, headers=headers)
            assert answer.status_code == 403
            assert "console.foreign-form" in answer.text
        assert client.post("logout").status_code in {400, 403}
        assert client.post(f"receipts/{WARD}/verify", data={}).status_code in {400, 403}
        assert client.get("").text.count('id="x-') == before


def test_each_role_sees_what_is_its_own(console: str) -> None:
    with signed_in(console, "allod_dev_1") as dev:
        assert dev.get(f"receipts/{WARD}").status_code == 200
        assert dev.get(f"receipts/{ARCHIVE}").status_code == 404
        assert ARCHIVE not in dev.get("").text
        assert dev.get("playground").status_code == 200
    with signed_in(console, "allod_aud_1") as auditor:
        assert auditor.get(f"receipts/{ARCHIVE}").status_code == 200
        assert auditor.get(f"receipts/{ARCHIVE}/tlog-proof").text.startswith("c2sp.org/tlog-proof")
        assert "playground" not in auditor.get("").text
        for path in ("playground", "playground/document"):
            assert auditor.get(path).status_code == 403
            assert auditor.post(path, data={"prompt": "x"}).status_code == 403
    with signed_in(console, "allod_own_1") as owner:
        foreign, missing = owner.get(f"receipts/{BANK}"), owner.get("receipts/r-nothing")
        assert (foreign.status_code, missing.status_code) == (404, 404)
        assert foreign.text == missing.text.replace("r-nothing", BANK)
        assert owner.get(f"receipts/{BANK}/json").status_code == 404
        assert BANK not in owner.get("").text
    with signed_in(console, "allod_oth_1") as bank:
        assert bank.get(f"receipts/{BANK}").status_code == 200


def test_what_rules_say_is_marked_with_the_language_it_is_in(console: str) -> None:
    with signed_in(console, "allod_own_1") as client:
        assert re.search(r'<(li|p) lang="en">[^<]', client.get("?lang=fr").text), "views are in English"
        form = {"token": token_of(client.get("playground?lang=fr")), "model": "ministral-3b", "prompt": "x"}
        told = client.post("playground", data=form | {"data_class": "restricted"}).text
        assert '<html lang="fr">' in told
        assert '<span lang="fr">Ce qui est réservé reste ici.</span>' in told
        assert '<span class="soft" lang="en">GDPR Art. 44</span>' in told
        told = client.post("playground", data=form | {"data_class": "public"}).text
        assert '<span lang="en">It stays inside the Union.</span>' in told


def test_what_is_too_large_or_malformed_gets_a_clear_answer(console: str) -> None:
    with signed_in(console, "allod_own_1") as client:
        token = token_of(client.get("playground/document"))
        data = {"token": token, "model": "reader"}
        cases = [
            (b"", 400, "console.no-document"),
            (b"MZ not a document", 400, "console.unknown-document"),
            (b"%PDF-" + bytes(limits.CONSOLE_UPLOAD_BYTES_MAX + 1), 413, "console.document-too-large"),
            (b"%PDF-" + bytes(limits.CONSOLE_UPLOAD_BYTES_MAX + 2**20), 413, "console.form-too-large"),
        ]
        for content, status, code in cases:
            answer = client.post("playground/document", data=data, files={"document": ("a.pdf", content)})
            assert (answer.status_code, code in answer.text) == (status, True), code
        broken = {"content-type": "multipart/form-data; boundary=x"}
        for body in (b"--x\r\nnonsense", b"\xff\xfe" * 50, b""):
            assert client.post("playground/document", content=body, headers=broken).status_code in {400, 403}
        for form in (
            {"data_class": "cosmic"},
            {"category": "gossip"},
            {"tokens": "-1"},
            {"tokens": "9" * 400},
            {"prompt": " "},
        ):
            answer = client.post(
                "playground", data={"token": token, "model": "ministral-3b", "prompt": "x", **form}
            )
            assert answer.status_code == 400, form


def test_an_unchanged_list_is_answered_with_nothing(console: str) -> None:
    with signed_in(console, "allod_aud_1") as client:
        found = re.search(r'hx-get="/console/([^"]+)"', client.get("").text)
        assert found is not None
        assert client.get(found.group(1).replace("&amp;", "&")).status_code == 204


def test_after_too_many_wrong_keys_even_the_right_one_waits(console: str) -> None:
    """Last in this file: it uses up the source's window."""
    with visitor(console) as client:
        token = token_of(client.get("login"))
        for _ in range(limits.CONSOLE_LOGIN_FAILURES_MAX + 1):
            answer = client.post("login", data={"token": token, "key": "allod_wrong"})
        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) > 0
        assert client.post("login", data={"token": token, "key": "allod_own_1"}).status_code == 503
