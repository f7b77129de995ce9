"""The console as a browser reaches it: over TLS, through a front that says truthfully who asks and how."""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator

import httpx
import pytest
from running_node import RunningNode, running_node

from allod import limits


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningNode]:
    home = tmp_path_factory.mktemp("console") / "home"
    home.mkdir()
    with running_node(home, "--tls-self-signed") as running:
        yield running


def _browser(node: RunningNode, address: str = "127.0.0.1") -> httpx.Client:
    """From `address`, believing nothing but the certificate that the node made for itself."""
    trusted = ssl.create_default_context(cafile=str(node.home / "keys" / "self-signed.crt"))
    transport = httpx.HTTPTransport(verify=trusted, local_address=address)
    return httpx.Client(base_url=node.url, transport=transport, timeout=30)


def _sign_in(browser: httpx.Client, key: str, **headers: str) -> httpx.Response:
    page = browser.get("/console/login")
    token = re.search(r'name="token" value="([^"]+)"', page.text)
    assert token, page.text
    form = {"token": token[1], "next": "", "key": key}
    return browser.post("/console/login", data=form, headers=headers)


def test_over_tls_every_cookie_is_secure_whatever_the_client_claims(node: RunningNode) -> None:
    assert node.url.startswith("https://")
    with _browser(node) as browser:
        answer = _sign_in(browser, node.admin_key, **{"x-forwarded-proto": "http"})
        assert answer.status_code == 303
        cookies = answer.headers.get_list("set-cookie")
        assert len(cookies) == 2
        for cookie in cookies:
            assert {"Secure", "HttpOnly", "SameSite=strict"} <= set(cookie.split("; "))
        assert browser.get("/console/").status_code == 200


def test_wrong_keys_count_against_the_address_they_come_from_and_no_claim_changes_it(
    node: RunningNode,
) -> None:
    with _browser(node, "127.0.0.2") as guesser, _browser(node) as other:
        for attempt in range(limits.CONSOLE_LOGIN_FAILURES_MAX + 1):
            claimed = f"198.51.100.{attempt}"
            answer = _sign_in(
                guesser,
                f"allod_wrong{attempt}_secret",
                **{
                    "x-forwarded-for": claimed,
                    "X_Forwarded_For": claimed,
                    "forwarded": f"for={claimed}",
                    "x-real-ip": claimed,
                },
            )
        assert answer.status_code == 503, "eleven wrong keys from one machine are one guesser"
        assert int(answer.headers["retry-after"]) > 0
        assert _sign_in(other, node.admin_key).status_code == 303, "nobody else is locked out"
