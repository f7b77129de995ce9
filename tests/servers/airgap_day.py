"""A model's way from a hub to a machine without any network, in a namespace that has only loopback.

`python airgap_day.py FOLDER`, run under `unshare --map-root-user --net`. Node A pulls from a hub on loopback,
is killed in the middle, resumes, signs, serves and answers under instructions; then a bundle is made, carried
and applied to a new home, whose node answers too. Prints one JSON object with what was seen.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from model_files import CARD, repository, serving
from running_node import ALLOD, RunningNode, running_node

from allod.models.testmodel import build as testmodel

NAME = "capitals"
_PARTS = ("--all-models", "--policy", "--instructions", "--config")
_SAME = ("model_digest", "instructions", "policy", "engine_digest", "origin")


def main() -> int:
    folder = Path(sys.argv[1])
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    told: dict[str, Any] = {"interfaces": [name for _, name in socket.if_nameindex()]}
    a, b, bundle = folder / "a", folder / "b", folder / "x.bundle"
    allod("init", "--home", str(a))
    told["killed"] = _pull(folder, a)
    config = a / "allod.toml"
    head, _, mine = config.read_text().partition("# Documents to text")
    service = mine[mine.index(f'\n[[service]]\nmodel = "{NAME}"') :]
    config.write_text(head + service + 'instructions = "clerk@1"\n')
    (folder / "clerk.md").write_text("You are a clerk.")
    allod("instructions", "add", "clerk@1", str(folder / "clerk.md"), "--author", "ana", "--home", str(a))
    allod("instructions", "approve", "clerk@1", "--by", "ben", "--home", str(a))
    with running_node(a) as node:
        told["a"] = _answer(node)
    told["made"] = allod("bundle", "create", "--out", str(bundle), *_PARTS, "--home", str(a))
    shutil.rmtree(a)  # nothing of it is there any more but the file
    fingerprint = told["made"]["signer"]
    told["verified"] = allod("bundle", "verify", str(bundle), "--key", fingerprint, "--home", str(b))
    told["stranger"] = allod("bundle", "apply", str(bundle), "--home", str(b), ok=False)
    told["nothing_made"] = not b.exists()
    told["applied"] = allod("bundle", "apply", str(bundle), "--trust-key", fingerprint, "--home", str(b))
    with running_node(b) as node:
        told["b"] = _answer(node)
        told["again"] = node.cli("bundle", "apply", str(bundle))
    print(json.dumps(told))
    return 0


def _pull(folder: Path, home: Path) -> int:
    """Pulls the test model, killed once in the middle; how many bytes were there by then."""
    weights = next(testmodel.build(folder / "made").glob("*.gguf"))
    repo = repository(folder / "hub", f"acme/{NAME}")
    for path in repo.iterdir():
        path.unlink()
    shutil.copyfile(weights, repo / weights.name)
    (repo / "README.md").write_text(CARD)
    words = ["models", "pull", f"hf:acme/{NAME}", "--licence", "Apache-2.0", "--home", str(home)]
    with serving("hub", folder / "hub", "--rate", str(256 * 1024)) as slow:
        pulling = subprocess.Popen([*ALLOD, *words, "--hub", slow.address], stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while not (half := [p for p in home.glob("models/partial/*/data") if p.stat().st_blocks]):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        os.kill(pulling.pid, signal.SIGKILL)
        pulling.wait()
        there = sum(p.stat().st_blocks * 512 for p in half)
    with serving("hub", folder / "hub") as hub:
        allod(*words, "--hub", hub.address, "--serve")
    return there


def _answer(node: RunningNode) -> dict[str, Any]:
    node.wait_ready()
    with node.client(node.key()) as client:
        messages = [{"role": "user", "content": "What is the capital of France?"}]
        answer = client.post(
            "/v1/chat/completions", json={"model": NAME, "messages": messages, "max_tokens": 16}
        )
    shown = node.cli("receipt", "show", answer.headers["allod-receipt"])["statement"]
    assert node.cli("receipt", "verify", answer.headers["allod-receipt"])["ok"]
    told = {name: shown[name] for name in _SAME}
    return told | {"text": answer.json()["choices"][0]["message"]["content"]}


def allod(*words: str, ok: bool = True) -> Any:
    command = [*ALLOD, *words, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode == 0) == ok, (words, done.returncode, done.stdout, done.stderr)
    return json.loads(done.stdout) | {"exit": done.returncode}


if __name__ == "__main__":
    sys.exit(main())
