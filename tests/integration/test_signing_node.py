"""A whole node serves only signed models, under instructions that its receipts name."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from running_node import RunningNode, running_node
from served_home import CHAT, EMBED, served_home

from allod.models import store

PROMPT = "Answer with the name of the capital, and nothing else."


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningNode]:
    home = served_home(tmp_path_factory.mktemp("signing"), (CHAT, EMBED))
    with running_node(home) as running:
        running.wait_ready()
        yield running


def _ask(node: RunningNode, *, model: str = CHAT, path: str = "chat/completions", **body: Any) -> Any:
    with node.client() as client:
        return client.post(f"/v1/{path}", json={"model": model, **body})


def _chat(node: RunningNode) -> Any:
    messages = [{"role": "user", "content": "What is the capital of France?"}]
    return _ask(node, messages=messages, max_tokens=16, temperature=0)


def _statement(node: RunningNode, answer: Any) -> dict[str, Any]:
    return dict(node.cli("receipt", "show", answer.headers["allod-receipt"])["statement"])


def _reason(node: RunningNode, model: str) -> str:
    services = node.cli("status")["services"]
    return str(next(s for s in services if s["model"] == model)["replicas"][0]["reason"])


def _wait(node: RunningNode, model: str) -> None:
    """Until a replica of the model answers."""
    for _ in range(200):
        services = node.cli("status")["services"]
        if any(r["state"] == "ready" for s in services if s["model"] == model for r in s["replicas"]):
            return
        time.sleep(0.1)
    raise AssertionError(_reason(node, model))


def _weights(node: RunningNode, model: str) -> Path:
    folder, manifest = store.find(node.home / "models", model)
    return folder / manifest.weights


def test_a_receipt_names_the_model_that_was_signed_and_what_it_was_told(node: RunningNode) -> None:
    plain = _statement(node, _chat(node))
    before = node.cli("instructions", "show", plain["instructions"])
    assert (before["system_prompt"], "messages" in before["chat_template"]) == ("", True)
    signed = node.cli("models", "sign", CHAT)["signed"][0]
    assert signed["who"] == "organisation"

    prompt = node.home / "prompt.md"
    prompt.write_text(PROMPT)
    node.cli("instructions", "add", "capitals@1", str(prompt), "--author", "ana")
    config = node.home / "allod.toml"
    config.write_text(config.read_text().replace("parallel = 2", 'parallel = 2\ninstructions = "capitals@1"'))
    node.cli("policy", "reload")
    assert "instructions.not-approved" in _reason(node, CHAT)
    node.cli("instructions", "approve", "capitals@1", "--by", "ben")
    node.cli("policy", "reload")
    _wait(node, CHAT)

    answer = _chat(node)
    assert answer.status_code == 200, answer.text
    told = _statement(node, answer)
    shown = node.cli("instructions", "show", told["instructions"])
    assert (shown["system_prompt"], shown["chat_template"]) == (PROMPT, before["chat_template"])
    assert told["instructions"] != plain["instructions"]
    assert told["input_bytes"] == plain["input_bytes"]  # the commitment is to what the client sent
    assert told["usage"]["input_tokens"] > plain["usage"]["input_tokens"]  # and the engine saw more
    parts = {
        "chat_template": "sha256:" + hashlib.sha256(shown["chat_template"].encode()).hexdigest(),
        "system_prompt": "sha256:" + hashlib.sha256(PROMPT.encode()).hexdigest(),
    }
    canonical = json.dumps(parts, separators=(",", ":"), sort_keys=True).encode()
    assert told["instructions"] == "sha256:" + hashlib.sha256(canonical).hexdigest()

    bare = _ask(node, path="completions", prompt="The capital of France is")
    assert (bare.status_code, bare.json()["error"]["code"]) == (400, "instructions.no-messages")


def test_a_changed_an_unsigned_and_a_revoked_model_are_not_served(node: RunningNode) -> None:
    weights = _weights(node, EMBED)
    signature = weights.parent / "model.sig"
    whole = signature.read_bytes()
    assert _ask(node, model=EMBED, path="embeddings", input="hello").status_code == 200

    signature.unlink()
    node.cli("policy", "reload")
    assert _reason(node, EMBED).startswith("[model.unsigned]")
    assert _ask(node, model=EMBED, path="embeddings", input="hello").status_code in (404, 503)

    signature.write_bytes(whole)
    os.chmod(weights, 0o644)
    with weights.open("r+b") as f:
        f.seek(-1, os.SEEK_END)
        last = f.read(1)
        f.seek(-1, os.SEEK_END)
        f.write(bytes([last[0] ^ 1]))
    node.cli("policy", "reload")
    assert _reason(node, EMBED).startswith("[model.changed]")
    assert weights.name in _reason(node, EMBED)
    assert node.cli("models", "sign", EMBED, ok=False)["error"]["code"] == "model.changed"

    with weights.open("r+b") as f:
        f.seek(-1, os.SEEK_END)
        f.write(last)
    (weights.parent / "added.json").write_text("{}")
    node.cli("policy", "reload")
    assert _reason(node, EMBED).startswith("[model.extra-file]")
    (weights.parent / "added.json").unlink()
    node.cli("policy", "reload")
    _wait(node, EMBED)
    assert _ask(node, model=EMBED, path="embeddings", input="hello").status_code == 200

    rotated = node.cli("models", "trust", "rotate")["retired"]
    node.cli("policy", "reload")
    _wait(node, EMBED)
    node.cli("models", "trust", "revoke", rotated["name"], "--reason", "the key was copied")
    node.cli("policy", "reload")
    assert _reason(node, EMBED).startswith("[model.key-revoked]")
    assert "the key was copied" in _reason(node, CHAT)
    node.cli("models", "sign", "--all")
    node.cli("policy", "reload")
    _wait(node, EMBED)
    assert _ask(node, model=EMBED, path="embeddings", input="hello").status_code == 200
