"""From a hub to a machine that has never seen a network, where nothing but loopback exists."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parents[1] / "servers" / "airgap_day.py"
NAMESPACE = ["unshare", "--map-root-user", "--net", "--kill-child"]


def test_what_was_pulled_answers_elsewhere_with_the_same_digests(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    tried = subprocess.run(
        [*NAMESPACE, "ip", "link", "set", "lo", "up"], capture_output=True, text=True, check=False
    )
    if tried.returncode:
        pytest.skip(f"no network namespace of our own: {tried.stderr.strip()}")
    folder = tmp_path_factory.mktemp("air")
    command = [*NAMESPACE, sys.executable, str(PROGRAM), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout.splitlines()[-1])

    assert told["interfaces"] == ["lo"]
    assert told["killed"] > 0
    assert "Paris" in told["a"]["text"]
    assert told["verified"]["ok"]
    assert (told["stranger"]["exit"], told["stranger"]["error"]["code"]) == (4, "bundle.signer-unknown")
    assert told["made"]["signer"] in told["stranger"]["error"]["message"]
    assert told["nothing_made"]
    assert {c.split()[0] for c in told["applied"]["changed"]} > {"trust", "model", "services"}
    # The same model, told the same, by the same rules; another node.
    assert told["a"]["model_digest"] == told["made"]["models"][0]["digest"]
    assert told["a"].pop("origin") != told["b"].pop("origin")
    assert told["a"] == told["b"]
    assert told["a"]["instructions"]
    assert told["again"]["changed"] == []
    assert told["again"]["reloaded"] > 0
