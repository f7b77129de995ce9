"""Attempts to be more than one's key says, and to find a secret where a running node leaves things."""

from __future__ import annotations

import base64
import os
import re
import stat
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from running_node import ALLOD, RunningNode

from allod.node import control

PROVIDER_KEY = "canary-of-a-provider-key-71c9"
PROMPT = "canary-of-a-prompt-2b60"
MODEL = "far-small"


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningNode]:
    """A whole node with one forbidden provider, started by somebody whose umask lets everybody write."""
    home = tmp_path_factory.mktemp("a node of ümläut") / "h"
    before = os.umask(0)
    try:
        subprocess.run([*ALLOD, "init", "--home", str(home)], check=True, capture_output=True)
        config = home / "allod.toml"
        config.write_text(config.read_text().partition("# Documents to text")[0])
        (home / "sites" / "far.toml").write_text(
            'catalogue = "mistral"\nname = "far"\n[provider]\nkey = "env:ALLOD_TEST_CANARY"\n'
            f'[provider.models."{MODEL}"]\nkind = "chat"\n'
        )
        (home / "keys" / "console.key").write_bytes(b"")  # as a full disk left it
        os.environ["ALLOD_TEST_CANARY"] = PROVIDER_KEY
        running = RunningNode(home)
        running.start()
    finally:
        os.umask(before)
    try:
        running.wait_ready()
        yield running
    finally:
        del os.environ["ALLOD_TEST_CANARY"]
        running.stop()


@pytest.fixture(scope="module")
def keys(node: RunningNode) -> dict[str, str]:
    return {role: node.key(role) for role in ("owner", "admin", "auditor", "developer", "service")}


@pytest.fixture(scope="module")
def receipt(node: RunningNode, keys: dict[str, str]) -> str:
    """Of a refused prompt: a record of the project `default`."""
    body = {"model": MODEL, "messages": [{"role": "user", "content": PROMPT}]}
    with node.client(keys["developer"]) as client:
        answer = client.post("/v1/chat/completions", json=body, headers={"allod-data-class": "restricted"})
    assert answer.status_code == 403
    return answer.headers["allod-receipt"]


def test_a_service_key_reads_no_receipt(node: RunningNode, keys: dict[str, str], receipt: str) -> None:
    for role, expected in (("developer", 200), ("auditor", 200), ("service", 404)):
        with node.client(keys[role]) as client:
            assert client.get(f"/v1/receipts/{receipt}").status_code == expected
            assert client.get(f"/v1/receipts/{receipt}/file").status_code == expected


def test_nobody_makes_a_key_above_their_own(node: RunningNode, keys: dict[str, str]) -> None:
    for role in ("admin", "auditor", "developer", "service"):
        with node.client(keys[role]) as client:
            answer = client.post("/admin/v1/keys", json={"project": "default", "role": "owner"})
            assert answer.status_code == 403, role


def test_the_operators_name_opens_nothing_from_outside(node: RunningNode) -> None:
    caller = b'{"key_id":"local","organisation":"default","project":"default","role":"owner"}'
    value = base64.urlsafe_b64encode(caller).decode()
    for name in (
        "allod-internal-caller",
        "Allod-Internal-Caller",
        "allod_internal_caller",
        "ALLOD-INTERNAL_CALLER",
    ):
        for more in ({}, {"connection": name}, {"authorization": value}, {"x-api-key": value}):
            answer = httpx.get(f"{node.url}/admin/v1/keys", headers={name: value} | more, trust_env=False)
            assert answer.status_code == 401, (name, more)


def _signed_in(node: RunningNode, key: str) -> httpx.Client:
    browser = httpx.Client(base_url=node.url, trust_env=False, timeout=30)
    page = browser.get("/console/login").text
    answer = browser.post(
        "/console/login", data={"token": _token(page), "key": key, "next": "//evil.example/"}
    )
    assert (answer.status_code, answer.headers["location"]) == (303, "/console/")
    return browser


def _token(page: str) -> str:
    found = re.search(r'name="token" value="([^"]+)"', page)
    assert found is not None
    return found[1]


def test_a_copied_cookie_ends_with_the_session(node: RunningNode, keys: dict[str, str]) -> None:
    browser = _signed_in(node, keys["developer"])
    copy = {"allod_console": browser.cookies["allod_console"]}
    other = _signed_in(node, keys["developer"])
    assert httpx.get(f"{node.url}/console/", cookies=copy, trust_env=False).status_code == 200
    token = _token(browser.get("/console/").text)
    assert browser.post("/console/logout", data={"token": token}).status_code == 303
    assert httpx.get(f"{node.url}/console/", cookies=copy, trust_env=False).status_code == 303
    assert other.get("/console/").status_code == 200, "another sign-in with the same key goes on"


def test_a_changed_cookie_and_a_foreign_form_are_nothing(node: RunningNode, keys: dict[str, str]) -> None:
    browser = _signed_in(node, keys["developer"])
    body, _, tag = browser.cookies["allod_console"].rpartition(".")
    claims = base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)).replace(b"developer", b"owner")
    forged = base64.urlsafe_b64encode(claims).rstrip(b"=").decode() + "." + tag
    cookies = {"allod_console": forged}
    assert httpx.get(f"{node.url}/console/", cookies=cookies, trust_env=False).status_code == 303
    token = _token(browser.get("/console/").text)
    for headers in ({"origin": "http://evil.example"}, {"origin": "null"}, {"sec-fetch-site": "same-site"}):
        answer = browser.post("/console/logout", data={"token": token}, headers=headers)
        assert answer.status_code == 403
    assert browser.post("/console/logout", data={"token": ""}).status_code == 403


def test_a_key_that_is_revoked_under_load_is_answered_nothing_afterwards(node: RunningNode) -> None:
    key = node.key("developer")
    stop, late = threading.Event(), []
    revoked = threading.Event()

    def ask() -> None:
        with node.client(key) as client:
            while not stop.is_set():
                after = revoked.is_set()
                status = client.get("/v1/models").status_code
                if after and status != 401:
                    late.append(status)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    node.cli("key", "revoke", key.split("_")[1])
    revoked.set()
    threading.Event().wait(0.3)
    stop.set()
    for thread in threads:
        thread.join()
    assert late == []


def test_no_secret_and_no_content_lies_about(node: RunningNode, keys: dict[str, str], receipt: str) -> None:
    secrets = {name: key.split("_", 2)[2] for name, key in {**keys, "first": node.admin_key}.items()}
    secrets |= {"provider": PROVIDER_KEY, "prompt": PROMPT}
    with node.client(keys["developer"]) as client:  # errors are where content likes to leak
        for path in (
            "/v1/chat/completions",
            "/mistral/v1/chat/completions",
            "/v1/fim/completions",
            "/v1/ocr",
        ):
            for body in (
                f'{{"model":"{MODEL}","messages":"{PROMPT}',
                f'{{"model":"{MODEL}","prompt":["{PROMPT}"]}}',
            ):
                client.post(path, content=body, headers={"content-type": "application/json"})
    for path in node.home.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            if path.name == "up.log":
                continue  # a test's own file; what the node says there is looked at below
            assert [n for n, s in secrets.items() if s.encode() in data] == [], path
    assert PROMPT not in (node.home / "up.log").read_text()
    for process in Path("/proc").iterdir():
        try:
            command = (process / "cmdline").read_bytes()
        except OSError:
            continue
        if str(node.home).encode() in command:
            assert [n for n, s in secrets.items() if s.encode() in command] == [], command


def test_a_providers_key_is_with_no_process_that_strangers_talk_to(node: RunningNode) -> None:
    fronts = node.pids(module="allod.front")
    assert fronts
    for pid in fronts:
        assert PROVIDER_KEY.encode() not in Path(f"/proc/{pid}/environ").read_bytes()


def test_nothing_below_the_home_can_be_written_by_others(node: RunningNode) -> None:
    assert stat.S_IMODE(node.home.stat().st_mode) == 0o700
    for path in node.home.rglob("*"):
        mode = path.lstat().st_mode
        ours = path.name not in ("up.log", "far.toml")  # written by this test
        reachable = not stat.S_ISLNK(mode) and not stat.S_ISSOCK(
            mode
        )  # sockets are behind run/, of mode 0700
        assert not (ours and reachable and mode & 0o022), (oct(mode), path)
    for name in ("keys", "run", "spool", "logs", "ledger/keys", "ledger/openings"):
        assert stat.S_IMODE((node.home / name).stat().st_mode) == 0o700, name
    for path in (node.home / "keys").iterdir():
        assert path.suffix == ".pub" or stat.S_IMODE(path.stat().st_mode) == 0o600, path
    assert len((node.home / "keys" / "console.key").read_bytes()) == 32


def test_a_second_node_in_the_same_home_is_told_so_and_harms_nothing(node: RunningNode) -> None:
    second = subprocess.run(
        [*ALLOD, "up", "--home", str(node.home), "--listen", "127.0.0.1:0"],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert second.returncode != 0
    assert "node.running" in second.stderr
    assert httpx.get(f"{node.url}/readyz", trust_env=False).status_code == 200


def test_a_home_that_cannot_be_written_to_is_named(tmp_path: Path) -> None:
    subprocess.run([*ALLOD, "init", "--home", str(tmp_path)], check=True, capture_output=True)
    command = [*ALLOD, "up", "--home", str(tmp_path), "--listen", "127.0.0.1:0"]
    read_only = 'mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" && exec "$@"'
    told = subprocess.run(
        ["unshare", "-rm", "sh", "-c", read_only, str(tmp_path), *command],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert (told.returncode, "home.unwritable" in told.stderr) == (3, True), told.stderr
    assert "--home" in told.stderr


def test_a_first_key_that_comes_late_is_not_written_into_a_log(capfd: pytest.CaptureFixture[str]) -> None:
    secret = "allod_aaaaaaaaaaaa_" + "s" * 43
    control._print_first_key(secret)
    said = capfd.readouterr().err
    assert secret not in said
    assert "allod key create" in said
