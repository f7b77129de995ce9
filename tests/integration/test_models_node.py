"""A model's whole way as its owner goes it: pulled from a hub, killed, resumed, admitted, signed, served,
answering, named by a receipt, kept while it is needed, and gone when it is not."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from model_files import CARD, gguf, model_folder, repository, serving
from running_node import ALLOD, RunningNode, running_node
from served_home import served_home

from allod import digest
from allod.models import store
from allod.models.testmodel import build as testmodel

MIB = 1 << 20
NAME = "capitals"


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = testmodel.build(tmp_path_factory.mktemp("made"))
    return next(folder.glob("*.gguf"))


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningNode]:
    with running_node(served_home(tmp_path_factory.mktemp("models"))) as running:
        running.wait_ready()
        yield running


def wait(until: Any, *, within_s: float = 60) -> None:
    deadline = time.monotonic() + within_s
    while not until():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def state(node: RunningNode, model: str) -> str:
    services = node.cli("status")["services"]
    return next((r["state"] for s in services if s["model"] == model for r in s["replicas"]), "absent")


def test_from_the_hub_to_a_receipt(tmp_path: Path, node: RunningNode, weights: Path) -> None:
    folder = repository(tmp_path / "hub", f"acme/{NAME}")
    for path in folder.iterdir():
        path.unlink()
    shutil.copyfile(weights, folder / weights.name)
    (folder / "README.md").write_text(CARD)
    rest = ("--home", str(node.home), "--licence", "Apache-2.0")
    with serving("hub", tmp_path / "hub", "--rate", str(MIB)) as slow:
        words = [*ALLOD, "models", "pull", f"hf:acme/{NAME}", "--hub", slow.address, *rest]
        killed = subprocess.Popen(words, stderr=subprocess.DEVNULL)
        wait(lambda: any(node.home.glob("models/partial/*/data")))
        os.kill(killed.pid, signal.SIGKILL)
        killed.wait()
    assert store.installed(node.home / "models") == []

    with serving("hub", tmp_path / "hub") as hub:
        first = node.cli("models", "pull", f"hf:acme/{NAME}", "--hub", hub.address, "--serve")
        assert first["origin"].startswith(f"hf:acme/{NAME}@")
        assert (first["served"], first["reloaded"] > 0) == (True, True)
        hub.forget()
        again = node.cli("models", "pull", f"hf:acme/{NAME}", "--hub", hub.address)
        assert (again["moved"], hub.sent) == (0, 0)

    wait(lambda: state(node, NAME) == "ready")
    with node.client() as client:
        messages = [{"role": "user", "content": "What is the capital of France?"}]
        answer = client.post(
            "/v1/chat/completions", json={"model": NAME, "messages": messages, "max_tokens": 16}
        )
    assert "Paris" in answer.json()["choices"][0]["message"]["content"]
    receipt = node.cli("receipt", "show", answer.headers["allod-receipt"])
    assert receipt["statement"]["model_digest"] == first["digest"]
    assert node.cli("models", "verify", NAME)["verified"][0]["signed_by"] == "organisation"

    # While it is configured, and then while a receipt names it, it stays.
    assert "configured" in node.cli("models", "rm", NAME, ok=False)["error"]["message"]
    config = node.home / "allod.toml"
    text = config.read_text()
    assert text.count(f'model = "{NAME}"') == 1, "the second pull did not add it twice"
    config.write_text(text.split(f'\n[[service]]\nmodel = "{NAME}"')[0])
    node.cli("policy", "reload")
    refused = node.cli("models", "rm", NAME, ok=False)["error"]
    assert (refused["code"], "receipts" in refused["message"]) == ("model.needed", True)
    node.cli("models", "prune")
    store.verify(store.find(node.home / "models", NAME)[0])
    config.write_text(config.read_text() + "\n[models]\nreceipts_days = 0\n")
    assert node.cli("models", "rm", NAME)["bytes"] >= weights.stat().st_size
    assert node.cli("models", "ls")["models"] == []


def run(home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [*ALLOD, *words, "--home", str(home)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    assert run(tmp_path / "n", "init").returncode == 0
    return tmp_path / "n"


def test_what_is_refused_says_why_and_what_next(tmp_path: Path, home: Path) -> None:
    config = home / "allod.toml"
    config.write_text(config.read_text() + '\n[models]\nallowed_licences = ["MIT"]\n')
    cases: list[tuple[Path, int, str]] = [
        (model_folder(tmp_path / "a"), 4, "model.licence-not-allowed"),
        (model_folder(tmp_path / "b", evil__bin=b""), 2, "model.pickle"),
        (model_folder(tmp_path / "c", vocab__txt=b"\x80\x04."), 2, "model.pickle"),
        (model_folder(tmp_path / "d", run__py=b""), 2, "model.remote-code"),
        (model_folder(tmp_path / "e", model__sig=b"{}"), 6, "model.bad-signature"),
    ]
    for folder, code, error in cases:
        if error != "model.licence-not-allowed":
            (folder / "README.md").write_text("---\nlicense: mit\n---\n")
        ran = run(home, "models", "add", str(folder))
        assert (ran.returncode, ran.stdout) == (code, "")
        assert ran.stderr.startswith(f"error[{error}]: ")
    assert run(home, "models", "ls").stdout == ""


def test_an_added_model_says_how_it_is_served(tmp_path: Path, home: Path) -> None:
    (tmp_path / "tiny.gguf").write_bytes(gguf())
    ran = run(home, "models", "add", str(tmp_path / "tiny.gguf"), "--tag", "v1")
    assert ran.returncode == 0
    assert ran.stdout.startswith("tiny:v1  sha256:")
    assert "nothing had to be moved" not in ran.stderr
    block = '[[service]]\nmodel = "tiny"\nengine = "llm"\nweights = "tiny:v1"\n'
    assert block in ran.stderr
    again = run(home, "models", "add", str(tmp_path / "tiny.gguf"), "--tag", "v1", "--serve")
    assert "nothing had to be moved" in again.stderr
    assert "from the next start on" in again.stderr
    assert (home / "allod.toml").read_text().endswith(f"\n\n{block}")
    assert "\x1b" not in again.stderr, "no bar where there is no terminal"
    assert run(home, "status").returncode == 3


def test_du_tells_what_is_shared(tmp_path: Path, home: Path) -> None:
    import json

    for name, seed in (("a", 1), ("b", 2)):
        assert run(home, "models", "add", str(model_folder(tmp_path / name, seed=seed))).returncode == 0
    told = json.loads(run(home, "models", "du", "--json").stdout)
    sizes = [p.stat().st_size for p in (tmp_path / "a").iterdir()]
    own = (tmp_path / "a/model.safetensors").stat().st_size
    assert told["stored"] == sum(sizes) + own
    assert [(r["model"], r["bytes"], r["alone"]) for r in told["models"]] == [
        ("a", sum(sizes), own), ("b", sum(sizes), own)
    ]  # fmt: skip


def test_push_and_pull_between_two_homes_that_trust_each_other(tmp_path: Path, home: Path) -> None:
    assert run(home, "models", "add", str(model_folder(tmp_path / "m"))).returncode == 0
    target = f"oci-layout:{tmp_path}/carry:v1"
    assert run(home, "models", "push", "m", target).returncode == 0
    other = tmp_path / "other"
    run(other, "init")
    refused = run(other, "models", "pull", target, "--name", "m")
    assert refused.returncode == 6
    assert "model.key-unknown" in refused.stderr
    pem = home / "trust" / "organisation.pem"
    assert run(other, "models", "trust", "add", "headquarters", str(pem), "--models", "m").returncode == 0
    assert run(other, "models", "pull", target, "--name", "m").returncode == 0
    one, two = (store.find(h / "models", "m") for h in (home, other))
    assert one[1].files == two[1].files
    assert one[1].digest == two[1].digest
    assert digest.of_file(two[0] / "publisher.sig") == digest.of_file(one[0] / "model.sig")
