"""The main job over a whole node: a document in, a receipt out that a stranger verifies; and the refusal."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from mistralai.client import Mistral
from mistralai.client.errors import SDKError
from pages import data_url, ocr_body, text_pdf
from running_node import ALLOD, RunningNode, running_node

ELSEWHERE = "mistral-ocr-latest"


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningNode]:
    home = tmp_path_factory.mktemp("node") / "home"
    subprocess.run([*ALLOD, "init", "--home", str(home)], check=True, capture_output=True)
    (home / "sites" / "mistral.toml").write_text(
        'catalogue = "mistral"\n[provider]\nkey = "env:ALLOD_TEST_NO_SUCH_KEY"\n'
        f'[provider.models."{ELSEWHERE}"]\nkind = "ocr"\n'
    )
    with running_node(home) as running:
        running.wait_ready()
        yield running


def _read(node: RunningNode, model: str, data_class: str) -> tuple[str, dict[str, str]]:
    seen: dict[str, str] = {}
    transport = httpx.Client(event_hooks={"response": [lambda r: seen.update(r.headers)]}, timeout=60)
    sdk = Mistral(api_key=node.key(), server_url=node.url, client=transport)
    answer = sdk.ocr.process(
        model=model,
        document={"type": "document_url", "document_url": data_url(text_pdf("Kontostand", "1.234,56 EUR"))},
        http_headers={"allod-data-class": data_class},
    )
    return "\n".join(p.markdown for p in answer.pages), seen


def test_a_document_comes_back_with_a_receipt_that_a_stranger_verifies_offline(
    node: RunningNode, tmp_path: Path
) -> None:
    text, headers = _read(node, "allod-ocr", "restricted")
    assert "1.234,56 EUR" in text
    assert headers["allod-site"] == "local"
    receipt = headers["allod-receipt"]

    proof = tmp_path / "receipt.tlog-proof"
    node.cli("receipt", "export", receipt, "--out", str(proof))
    public_key = tmp_path / "ledger.pub"
    public_key.write_bytes((node.home / "keys" / "ledger.pub").read_bytes())
    # The stranger: two files, no home, no node, and a network namespace without even a loopback.
    command = ["unshare", "-rn", *ALLOD, "receipt", "verify", str(proof), "--key", str(public_key)]
    stranger = subprocess.run(
        command, capture_output=True, text=True, env={"HOME": str(tmp_path)}, check=False
    )
    assert stranger.returncode == 0, stranger.stderr
    assert receipt in stranger.stdout

    changed = proof.read_text().replace("extra ", "extra A", 1)
    proof.write_text(changed)
    refused = subprocess.run(
        command, capture_output=True, text=True, env={"HOME": str(tmp_path)}, check=False
    )
    assert refused.returncode == 6, "a changed receipt must not verify"


def test_a_forbidden_place_is_refused_with_a_receipt_and_nothing_leaves(node: RunningNode) -> None:
    with pytest.raises(SDKError) as refused:
        _read(node, ELSEWHERE, "restricted")
    assert refused.value.status_code == 403
    receipt = refused.value.headers["allod-receipt"]
    shown = node.cli("receipt", "show", receipt)["statement"]
    assert shown["outcome"] == "refused"
    assert shown["decision"] == "deny"
    assert shown["attempts"] == []
    assert shown["site"] == ""
    assert shown["refused"][0]["site"] == "mistral"
    assert shown["refused"][0]["rules"]
    assert node.cli("receipt", "verify", receipt)["ok"]


def test_a_lower_class_than_the_floor_is_raised_to_it(node: RunningNode) -> None:
    node.cli("project", "create", "ward", "--floor", "restricted", "--class", "restricted")
    body = ocr_body(text_pdf("x"), model=ELSEWHERE)
    with node.client(node.key(project="ward")) as client:
        answer = client.post("/v1/ocr", json=body, headers={"allod-data-class": "public"})
    assert answer.status_code == 403
    assert answer.headers["allod-data-class"] == "restricted"


def test_a_revoked_key_is_refused_from_the_moment_revoking_returns(node: RunningNode) -> None:
    key = node.key()
    with node.client(key) as client:
        assert client.post("/v1/ocr", json=ocr_body(text_pdf("x"))).status_code == 200
        node.cli("key", "revoke", key.split("_")[1])
        assert client.post("/v1/ocr", json=ocr_body(text_pdf("x"))).status_code == 401


def test_the_first_key_administers_and_an_auditor_calls_no_model(node: RunningNode) -> None:
    with node.client() as admin:
        status = admin.get("/admin/v1/status").json()
    assert status["ready"]
    with node.client(node.key("auditor")) as auditor:
        answer = auditor.post("/v1/ocr", json=ocr_body(text_pdf("x")))
        assert answer.status_code == 403
        assert auditor.get(f"/v1/receipts/{answer.headers['allod-receipt']}").status_code == 200


def test_policy_explain_says_where_and_why(node: RunningNode) -> None:
    told = node.cli("policy", "explain", "--model", ELSEWHERE, "--class", "restricted")
    assert not any(s["allowed"] for s in told["sites"])
    assert all(rule["reason"] for s in told["sites"] for rule in s["rules"])
    assert any(fact["source"] and fact["date"] for s in told["sites"] for fact in s["facts"] if fact["known"])
    here = node.cli("policy", "explain", "--model", "allod-ocr", "--class", "restricted")
    assert [s["site"] for s in here["sites"] if s["allowed"]] == ["local"]


def test_a_broken_policy_is_refused_and_the_old_one_stays_in_force(node: RunningNode) -> None:
    broken = node.home / "policy" / "99-broken.cedar"
    broken.write_text("permit (principal, action, resource) when { resource.no_such_fact };\n")
    try:
        done = subprocess.run(
            [*ALLOD, "policy", "reload", "--home", str(node.home)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 2, done
        assert "99-broken.cedar" in done.stderr
        with pytest.raises(SDKError, match="403"):
            _read(node, ELSEWHERE, "restricted")
    finally:
        broken.unlink()


def test_the_whole_ledger_verifies_and_the_command_runs_as_a_module(node: RunningNode) -> None:
    assert node.cli("ledger", "verify", str(node.home / "ledger"))["ok"]
    assert subprocess.run([sys.executable, "-m", "allod", "version"], check=True, capture_output=True).stdout
