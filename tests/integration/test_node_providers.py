"""A whole node and three providers: failover stays inside what the policy allows, and nothing else leaves.

For internal data `a-unknown` is forbidden (nobody knows whether it trains on content) although it comes first
in order and works; `b-first` and `c-second` are allowed.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from far_provider import FarProvider, far_providers
from running_node import ALLOD, RunningNode, running_node
from served_home import OCR, served_home

FORBIDDEN, FIRST, SECOND = "a-unknown", "b-first", "c-second"
MODEL = "shared"
SECRETS = {
    FORBIDDEN: "sk-far-0-aaaaaaaaaaaaaaaa",
    FIRST: "sk-far-1-bbbbbbbbbbbbbbbb",
    SECOND: "sk-far-2-cccccccc",
}
ROTATED = ("sk-far-2-dddddddddddddddd", "sk-far-2-eeeeeeeeeeeeeeee")
PROMPT = "the patient in room seven"


class Far:
    def __init__(self, node: RunningNode, providers: dict[str, FarProvider], keys: dict[str, str]) -> None:
        self.node = node
        self.providers = providers
        self.keys = keys
        self.key = node.key()
        self.answers: list[bytes] = []

    def write_site(self, name: str, *, trains: bool | None, upstream: str = "theirs") -> None:
        text = self.providers[name].site(MODEL, key=self.keys[name], trains=trains, upstream=upstream)
        (self.node.home / "sites" / f"{name}.toml").write_text(text)

    def ask(self, data_class: str = "internal", **more: Any) -> httpx.Response:
        headers = {"allod-data-class": data_class, "cookie": "session=1", "x-trace": "mine"}
        body = {"model": MODEL, "messages": [{"role": "user", "content": PROMPT}]} | more
        with self.node.client(self.key) as client:
            answer = client.post("/v1/chat/completions", json=body, headers=headers)
        self.answers.append(answer.content)
        return answer

    def listen(self) -> tuple[httpx.Response, str]:
        """A stream for internal data, and all that came of it before it broke off."""
        body = {"model": MODEL, "messages": [{"role": "user", "content": PROMPT}], "stream": True}
        said = b""
        with (
            self.node.client(self.key) as client,
            client.stream("POST", "/v1/chat/completions", json=body) as answer,
            contextlib.suppress(httpx.RemoteProtocolError),
        ):
            for piece in answer.iter_raw():
                said += piece
        return answer, said.decode()

    def statement(self, answer: httpx.Response) -> dict[str, Any]:
        with self.node.client(self.key) as client:
            told = client.get(f"/v1/receipts/{answer.headers['allod-receipt']}")
        assert told.status_code == 200, told.text
        self.answers.append(told.content)
        statement: dict[str, Any] = told.json()["statement"]
        return statement

    def modes(self, **modes: Any) -> None:
        for name, provider in self.providers.items():
            provider.mode = modes.get(name.partition("-")[2], "answer")
            provider.seen.clear()

    def counts(self) -> dict[str, int]:
        return {name: len(provider.seen) for name, provider in self.providers.items()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Far]:
    folder = tmp_path_factory.mktemp("far")
    (folder / "second.key").write_text(SECRETS[SECOND] + "\n")
    (folder / "second.key").chmod(0o600)
    keys = {
        FORBIDDEN: "env:ALLOD_TEST_FAR_0",
        FIRST: "env:ALLOD_TEST_FAR_1",
        SECOND: f"file:{folder / 'second.key'}",
    }
    home = served_home(folder, (OCR,))
    with pytest.MonkeyPatch.context() as patch, far_providers(*keys) as providers:
        patch.setenv("ALLOD_TEST_FAR_0", SECRETS[FORBIDDEN])
        patch.setenv("ALLOD_TEST_FAR_1", SECRETS[FIRST])
        for name, key in keys.items():
            text = providers[name].site(MODEL, key=key, trains=None if name == FORBIDDEN else False)
            (home / "sites" / f"{name}.toml").write_text(text)
        with running_node(home, "--workers", "2") as node:
            node.wait_ready()
            yield Far(node, providers, keys)


@pytest.fixture
def far(whole: Far) -> Far:
    """All three answer, and both workers have found out."""
    whole.modes()
    until, in_a_row = time.monotonic() + 40, 0
    while in_a_row < 8:  # a new connection each: some to either worker
        assert time.monotonic() < until
        in_a_row = in_a_row + 1 if whole.ask().headers.get("allod-site") == FIRST else 0
    whole.modes()
    return whole


def test_only_the_key_and_the_body_leave_and_only_to_the_first_that_is_allowed(far: Far) -> None:
    answer = far.ask(seed=5)
    assert answer.json()["choices"][0]["message"]["content"] == f"from {FIRST}"
    assert answer.headers["allod-site"] == FIRST
    assert far.counts() == {FORBIDDEN: 0, FIRST: 1, SECOND: 0}
    headers, body = far.providers[FIRST].seen[0]
    assert headers["authorization"] == f"Bearer {SECRETS[FIRST]}"
    assert set(headers) == {
        "authorization", "host", "accept", "accept-encoding", "connection", "user-agent",
        "content-type", "content-length",
    }  # fmt: skip
    assert far.key not in str(headers) + str(body)
    assert body == {"model": "theirs", "messages": [{"role": "user", "content": PROMPT}], "seed": 5}
    statement = far.statement(answer)
    assert (statement["site"], statement["decision"], statement["outcome"]) == (FIRST, "allow", "answered")
    assert statement["attempts"] == [{"outcome": "answered", "replica": f"{FIRST}-egress", "site": FIRST}]
    assert [(r["site"], r["rules"]) for r in statement["refused"]] == [(FORBIDDEN, ["1.1-no-training"])]
    assert statement["usage"] == {"input_tokens": 3, "output_tokens": 2, "pages": 0, "source": "engine"}
    assert statement["sampling"] == {"seed": "5"}
    assert statement["engine"].startswith("allod-egress ")
    assert statement["site_facts"].startswith("sha256:")
    assert PROMPT not in str(statement)


def test_public_data_goes_to_the_one_that_is_forbidden_for_the_rest(far: Far) -> None:
    """Otherwise its silence in all the other tests would prove nothing."""
    assert far.statement(far.ask("public"))["site"] == FORBIDDEN
    assert far.counts() == {FORBIDDEN: 1, FIRST: 0, SECOND: 0}
    refused = far.ask("restricted")
    assert refused.status_code == 403
    assert far.statement(refused)["attempts"] == []
    assert far.counts() == {FORBIDDEN: 1, FIRST: 0, SECOND: 0}


@pytest.mark.parametrize("mode", ["503", "502", "401", "hang-up"])
@pytest.mark.parametrize("stream", [False, True])
def test_failover_goes_to_the_next_that_is_allowed(far: Far, mode: str, stream: bool) -> None:
    far.modes(first=mode)
    answer = far.ask(stream=stream)
    assert answer.status_code == 200
    assert answer.headers["allod-site"] == SECOND
    assert far.counts() == {FORBIDDEN: 0, FIRST: 1, SECOND: 1}
    statement = far.statement(answer)
    assert [a["site"] for a in statement["attempts"]] == [FIRST, SECOND]
    assert statement["attempts"][0]["outcome"] == ("status-502" if mode == "502" else "status-503")
    assert (statement["site"], statement["outcome"]) == (SECOND, "answered")
    assert statement["usage"]["output_tokens"] == 2


def test_an_egress_process_that_is_killed_is_passed_over(far: Far) -> None:
    record = json.loads((far.node.home / "run" / "records" / f"{FIRST}-egress.json").read_text())
    os.kill(record["leader"]["pid"], signal.SIGKILL)
    answer = far.ask()
    assert answer.headers["allod-site"] == SECOND
    assert far.statement(answer)["attempts"][0] | {"outcome": ""} == {
        "outcome": "", "replica": f"{FIRST}-egress", "site": FIRST,
    }  # fmt: skip
    assert far.counts()[FORBIDDEN] == 0


@pytest.mark.parametrize("stream", [False, True])
def test_with_all_that_are_allowed_down_the_answer_is_503_and_receipted(far: Far, stream: bool) -> None:
    far.modes(first="503", second="hang-up")
    answer = far.ask(stream=stream)
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) >= 1
    assert answer.json()["error"]["code"] == "replica.unreachable"
    statement = far.statement(answer)
    assert (statement["outcome"], statement["status"], statement["decision"]) == ("failed", 503, "allow")
    assert [a["site"] for a in statement["attempts"]] == [FIRST, SECOND]
    assert far.counts() == {FORBIDDEN: 0, FIRST: 1, SECOND: 1}


def test_a_stream_that_tears_is_said_to_be_torn_and_not_begun_again_elsewhere(far: Far) -> None:
    far.modes(first="tear")
    answer, said = far.listen()
    assert "replica.lost" in said
    assert "[DONE]" not in said
    statement = far.statement(answer)
    assert statement["outcome"] == "failed"
    assert statement["usage"]["source"] == "estimated"
    assert far.counts() == {FORBIDDEN: 0, FIRST: 1, SECOND: 0}


def test_the_intent_is_on_disk_before_the_first_byte_leaves(far: Far) -> None:
    """Both fronts die the moment the request has arrived elsewhere: the ledger still knows that it left."""

    def kill() -> str:
        assert far.node.kill(module="allod.front") == 2
        return "answer"

    far.modes(first=kill)
    with pytest.raises(httpx.HTTPError):
        far.ask()
    far.providers[FIRST].mode = "answer"
    far.node.wait_ready()
    until = time.monotonic() + 20
    while not (left := [s for s in _statements(far) if s["outcome"] == "interrupted"]):
        assert time.monotonic() < until, "content left this machine and nothing says so"
        time.sleep(0.1)
    assert [(s["site"], s["decision"], s["model"]) for s in left] == [(FIRST, "allow", MODEL)]


def _statements(far: Far) -> list[dict[str, Any]]:
    exchanges = far.node.cli("receipt", "ls", "--limit", "500")["exchanges"]
    return [view["statement"] for view in exchanges]


def test_a_site_that_closes_while_a_request_is_on_its_way_is_not_failed_over_to(far: Far) -> None:
    def close_the_next() -> str:
        far.write_site(SECOND, trains=True)
        far.node.cli("policy", "reload")
        return "503"

    far.modes(first=close_the_next)
    try:
        answer = far.ask()
    finally:
        far.write_site(SECOND, trains=False)
        far.node.cli("policy", "reload")
    assert answer.status_code == 503
    assert far.counts() == {FORBIDDEN: 0, FIRST: 1, SECOND: 0}
    statement = far.statement(answer)
    assert [a["site"] for a in statement["attempts"]] == [FIRST]
    assert statement["outcome"] == "failed"


def test_a_reload_under_load_opens_nothing_and_closes_at_once(far: Far) -> None:
    """While facts and failures change, internal data reaches only what is allowed when it leaves."""
    stop, answers, lock = threading.Event(), [], threading.Lock()

    def load() -> None:
        while not stop.is_set():
            answer = far.ask()
            with lock:
                answers.append((answer.status_code, answer.headers.get("allod-site")))

    threads = [threading.Thread(target=load) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for trains in (True, False, None, False, True):
            far.write_site(SECOND, trains=trains)
            far.node.cli("policy", "reload")
            sent = len(far.providers[SECOND].seen)
            far.providers[FIRST].mode = "503"  # all of it wants to go on to the second
            time.sleep(0.4)
            if trains is not False:
                assert len(far.providers[SECOND].seen) <= sent + len(threads), "only what was on its way"
                settled = len(far.providers[SECOND].seen)
                time.sleep(0.3)
                assert len(far.providers[SECOND].seen) == settled, "a closed site was still sent to"
            far.providers[FIRST].mode = "answer"
            time.sleep(0.2)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
        far.write_site(SECOND, trains=False)
        far.node.cli("policy", "reload")
    assert far.counts()[FORBIDDEN] == 0
    assert {status for status, _ in answers} <= {200, 503}
    assert {site for status, site in answers if status == 200} == {FIRST, SECOND}


def test_a_changed_site_file_changes_what_is_sent(far: Far) -> None:
    far.write_site(FIRST, trains=False, upstream="renamed")
    far.node.cli("policy", "reload")
    until = time.monotonic() + 20
    while far.ask().headers.get("allod-site") != FIRST:
        assert time.monotonic() < until
        time.sleep(0.1)
    assert far.providers[FIRST].seen[-1][1]["model"] == "renamed"


def test_a_rotated_key_is_used(far: Far) -> None:
    """Written into its file: at once. As another file in its place, as most tools do: from the reload on."""
    far.modes(first="503")
    path = Path(far.keys[SECOND].removeprefix("file:"))
    path.write_text(ROTATED[0])
    assert far.ask().status_code == 200
    other = path.with_suffix(".new")
    other.write_text(ROTATED[1])
    other.chmod(0o600)
    other.replace(path)
    far.node.cli("policy", "reload")
    until = time.monotonic() + 20
    while far.ask().status_code != 200:  # its egress process is another one
        assert time.monotonic() < until
        time.sleep(0.1)
    used = [headers["authorization"] for headers, _ in far.providers[SECOND].seen]
    assert [used[0], used[-1]] == [f"Bearer {key}" for key in ROTATED]


def test_no_key_is_anywhere_but_where_it_was_put(far: Far) -> None:
    secrets = [secret.encode() for secret in (*SECRETS.values(), *ROTATED)]
    shown = [
        *far.answers,
        subprocess.run(["ps", "-ww", "-eo", "args"], capture_output=True, check=True).stdout,
    ]
    for words in (("status",), ("sites", "ls"), ("receipt", "ls"), ("policy", "explain", "--model", MODEL)):
        command = [*ALLOD, *words, "--json", "--home", str(far.node.home)]
        done = subprocess.run(command, capture_output=True, check=False)
        assert done.stdout
        shown += [done.stdout, done.stderr]
    files = [p for p in far.node.home.rglob("*") if p.is_file()]
    assert any(p.name == f"{FIRST}-egress.log" for p in files)
    for secret in [*secrets, far.key.rpartition("_")[2].encode()]:
        assert not [s for s in shown if secret in s]
        assert not [p for p in files if secret in p.read_bytes()]
    assert all(PROMPT.encode() not in path.read_bytes() for path in files)
