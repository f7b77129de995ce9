"""Nothing contacts the outside unless a person asks: a node's whole day on a cable that is watched."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parents[1] / "servers" / "silent_node.py"
NAMESPACE = ["unshare", "--map-root-user", "--net", "--mount", "--kill-child"]


@pytest.mark.parametrize("sealed", [True, False])
def test_a_node_sends_nothing(tmp_path_factory: pytest.TempPathFactory, sealed: bool) -> None:
    """Sealed as it runs; and unsealed, where an engine that phones home would be seen trying."""
    tried = subprocess.run(
        [*NAMESPACE, "ip", "link", "add", "out", "type", "veth", "peer", "name", "world"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if tried.returncode:
        pytest.skip(f"no network namespace with an interface to watch: {tried.stderr.strip()}")
    folder = tmp_path_factory.mktemp("silent")
    command = [*NAMESPACE, sys.executable, str(PROGRAM), str(folder), *([] if sealed else ["--unsealed"])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert "nothing leaves" in told["said"]["text"]
    assert (told["said"]["picture"] == "rapidocr") != sealed
    assert told["said"]["chat"]
    assert told["before"] == 0
    assert told["after"] == 0, "something was sent to the outside"
    assert told["after_a_lookup"] > 0, "a name that is looked up would not have been seen"
    assert told["after_a_packet"] > told["after_a_lookup"]
    assert len(told["replicas"]) == 3
    for replica in told["replicas"]:
        assert replica["own"] == sealed
        assert replica["interfaces"] == (["lo"] if sealed else ["lo", "world", "out"])
