"""`allod up`, `down` and the verbs between them, as a program that reads JSON meets them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from running_node import ALLOD, RunningNode

from allod.config import Home
from allod.node import launcher


def _allod(home: Path, *words: str) -> tuple[int, Any]:
    done = subprocess.run(
        [*ALLOD, *words, "--json", "--home", str(home)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return done.returncode, json.loads(done.stdout)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    home = tmp_path_factory.mktemp("command") / "home"
    yield home
    subprocess.run([*ALLOD, "down", "--home", str(home)], capture_output=True, timeout=60, check=False)


@pytest.fixture(scope="module")
def told(home: Path) -> dict[str, Any]:
    code, told = _allod(home, "up", "--detach", "--listen", "127.0.0.1:0")
    assert code == 0
    return dict(told)


def test_up_says_one_object_and_the_key_in_it_works(home: Path, told: dict[str, Any]) -> None:
    assert set(told) == {"url", "console", "admin_key", "not_ready"}
    assert told["not_ready"] == []
    answer = httpx.get(
        told["url"] + "/admin/v1/status", headers={"authorization": f"Bearer {told['admin_key']}"}
    )
    assert answer.json()["ready"]
    assert httpx.get(told["console"], follow_redirects=True).status_code == 200


def test_a_control_process_that_starts_again_is_not_called_a_node_that_is_down(
    home: Path, told: dict[str, Any]
) -> None:
    """Control is stopped, not only killed, so that its absence lasts as long as the test looks."""
    node = RunningNode(home)
    parent = launcher.running_pid(Home.of(home))
    assert parent is not None
    os.kill(parent, signal.SIGSTOP)
    try:
        assert node.kill(module="allod.node.control") == 1
        code, said = _allod(home, "status")
        assert code == 3
        assert said["error"]["code"] == "node.restarting"
        assert "still answered" in said["error"]["message"]
        assert httpx.get(told["url"] + "/healthz").status_code == 200
    finally:
        os.kill(parent, signal.SIGCONT)
    deadline = time.monotonic() + 30
    while _allod(home, "status")[0] != 0:
        assert time.monotonic() < deadline


def test_down_leaves_no_socket_and_no_process(home: Path, told: dict[str, Any]) -> None:
    run = home / "run"
    assert {p.name for p in run.glob("*.sock")} >= {
        "admin.sock",
        "control.sock",
        "fronts.sock",
        "front-0.sock",
    }
    assert _allod(home, "down") == (0, {"stopped": True})
    assert list(run.rglob("*.sock")) == []
    node = RunningNode(home)
    assert not node.pids(module="allod.node.control") + node.pids(module="allod.front")
    code, said = _allod(home, "status")
    assert (code, said["error"]["code"]) == (3, "node.not-running")
    assert _allod(home, "down") == (0, {"stopped": False})
