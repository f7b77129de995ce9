"""The verbs that ask a node: the real command, over a real admin socket, against the real admin API."""

import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from small_node import OPERATOR, RECEIPT, SmallNode, engine

import allod
from allod.api.apps import admin_app

ROOT = str(Path(allod.__file__).parents[1])


class Node:
    """A home whose admin socket a small node serves, with a scripted engine behind it."""

    def __init__(self, home: Path, small: SmallNode) -> None:
        self.home, self.small = home, small

    def run(
        self, *words: str, code: int = 0, stdin: str = "", env: dict[str, str] | None = None
    ) -> tuple[str, str]:
        base = {"PATH": os.environ["PATH"], "PYTHONPATH": ROOT, "HOME": "/nonexistent"}
        done = subprocess.run(
            [sys.executable, "-m", "allod", *words, "--home", str(self.home)],
            input=stdin, capture_output=True, text=True, timeout=60, env=base | (env or {}), check=False,
        )  # fmt: skip
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout, done.stderr

    def json(self, *words: str, code: int = 0, **options: Any) -> Any:
        return json.loads(self.run(*words, "--json", code=code, **options)[0])


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    home = tmp_path_factory.mktemp("n")
    (home / "run").mkdir()
    with engine(tmp_path_factory.mktemp("s")) as front:
        small = SmallNode([front])
        config = uvicorn.Config(
            admin_app(small, OPERATOR), uds=str(home / "run/admin.sock"), log_level="critical", lifespan="off"
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        while not server.started:
            thread.join(0.01)
        yield Node(home, small)
        server.should_exit = True
        with contextlib.suppress(RuntimeError):
            thread.join(10)


def test_status_for_people_and_for_programs(node: Node) -> None:
    text, _ = node.run("status")
    assert text.splitlines()[0] == "ready: http://127.0.0.1:0"
    assert "small.example" in text
    assert "2 receipts, checkpoint of" in text
    assert node.json("status")["services"][0]["model"] == "tiny"


def test_a_key_is_shown_once_and_revoked_at_once(node: Node) -> None:
    text, talk = node.run("key", "create", "--project", "risk", "--role", "service", "--label", "ward 7")
    secret = text.strip()
    assert secret.startswith("allod_")
    assert "\n" not in secret, "stdout is the key alone, to be piped"
    assert "shown only now" in talk
    listed, _ = node.run("key", "ls")
    assert secret not in listed
    key_id = secret.split("_")[1]
    assert next(line for line in listed.splitlines() if line.startswith(f"{key_id} ")).split()[4] == "valid"
    node.run("key", "revoke", key_id)
    rows = {k["key_id"]: k for k in node.json("key", "ls")["keys"]}
    assert rows[key_id]["revoked_us"]
    error = node.json("key", "revoke", "../status", code=2)["error"]
    assert error["code"].endswith(".unknown"), "what is typed is one segment, never another route"


def test_a_project_says_its_class_in_words(node: Node) -> None:
    made = node.json("project", "create", "oncology", "--class", "restricted", "--category", "health")
    assert (made["default_class"], made["floor_class"], made["categories"]) == (
        "restricted",
        "restricted",
        ["health"],
    )
    text, _ = node.run("project", "ls")
    assert [line.split() for line in text.splitlines() if line.startswith("oncology")] == [
        ["oncology", "acme", "restricted", "restricted", "health"]
    ]


def test_a_decision_is_explained(node: Node) -> None:
    text, _ = node.run(
        "policy", "explain", "--model", "vectors", "--class", "internal", "--project", "claims"
    )
    assert text.splitlines()[0] == "developer of claims asks vectors to embed (internal):"
    assert "here: may\n  small: Because.\n" in text
    assert "law: Art. 0" in text
    facts = [line.split() for line in text.splitlines() if line.startswith("    ")]
    assert facts[1:] == [
        ["operator", "ACME", "(contract", "7,", "2026-11-01)"],
        ["storage_countries", "unknown"],
        ["transfer_basis", "unknown", "(expired", "2026-11-20,", "contract", "7,", "2026-11-01)"],
    ]
    german, _ = node.run("policy", "explain", "--model", "vectors", "--class", "public", "--language", "de")
    assert "small: Darum." in german
    said = node.json("policy", "explain", "--model", "tiny", "--class", "restricted", "--project", "claims")
    assert said["allowed"] is False
    assert said["sites"][0]["rules"][0]["id"] == "small"
    assert said["sites"][0]["facts"][1]["known"] is False


def test_receipts_are_listed_shown_and_exported(node: Node, tmp_path: Path) -> None:
    assert RECEIPT in node.run("receipt", "ls", "--project", "claims")[0]
    assert RECEIPT in node.run("receipt", "show", RECEIPT)[0]
    file = tmp_path / "r.cose"
    assert (
        node.json("receipt", "export", RECEIPT, "--form", "cose", "--out", str(file))["bytes"]
        == file.stat().st_size
    )
    assert file.read_bytes() == f"cose of {RECEIPT}".encode()
    assert node.run("receipt", "export", RECEIPT, "--out", "-")[0] == f"tlog-proof of {RECEIPT}"
    assert node.run("receipt", "verify", RECEIPT)[0] == f"ok   inclusion: {RECEIPT}\n"
    assert node.json("receipt", "show", "r-nope", code=2)["error"]["code"] == "receipt.unknown"


def test_erasing_takes_a_yes(node: Node) -> None:
    node.run("receipt", "erase", RECEIPT, code=2)
    assert node.small.erased == []
    node.run("receipt", "erase", RECEIPT, "--yes")
    assert node.small.erased == [RECEIPT]


def test_a_question_streams_and_ends_with_its_receipt(node: Node) -> None:
    text, talk = node.run("run", "tiny", "hello")
    assert text.strip()
    assert talk.startswith("receipt ")
    whole = node.json("run", "tiny", "-", stdin="hello")
    assert whole["text"].strip() == text.strip()
    assert whole["receipt"]
    assert whole["site"]


def test_checkpoint_and_reload(node: Node) -> None:
    assert node.run("ledger", "checkpoint")[0] == "small.example\n2\n"
    assert node.json("policy", "reload")["version"] == 1


def test_a_node_that_breaks_off_is_no_defect_of_the_command(tmp_path: Path) -> None:
    import socket

    (tmp_path / "run").mkdir()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "run/admin.sock"))
    listener.listen()

    def hang_up() -> None:
        listener.accept()[0].close()

    threading.Thread(target=hang_up, daemon=True).start()
    error = Node(tmp_path, SmallNode([])).json("status", code=3)["error"]
    assert error["code"] == "node.broken-off"
    listener.close()
    error = Node(tmp_path, SmallNode([])).json("status", code=3)["error"]
    assert error["code"] == "node.not-running", "a socket that nobody holds"
