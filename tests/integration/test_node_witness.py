"""A node whose checkpoints somebody else cosigns: receipts show it, and its being away stops nothing."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from pages import ocr_body, text_pdf
from running_node import ALLOD, running_node


def test_receipts_carry_the_cosignature_of_a_witness_run_by_others(tmp_path: Path) -> None:
    home, theirs = tmp_path / "home", tmp_path / "witness"
    subprocess.run([*ALLOD, "init", "--home", str(home)], check=True, capture_output=True)
    log_keys = (home / "keys" / "ledger.pub").read_text().split()
    witness = subprocess.Popen(
        [
            sys.executable, "-m", "allod.ledger.witness", "--state", str(theirs), "--listen", "127.0.0.1:0",
            "--key", str(tmp_path / "witness.key"), "--name", "witness.example",
            *(word for key in log_keys for word in ("--log", key)),
        ],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert witness.stdout is not None
        key = witness.stdout.readline().strip()
        url = "http://" + witness.stdout.readline().split()[-1]
        with (home / "allod.toml").open("a") as f:
            f.write(f'\n[[ledger.witness]]\nurl = "{url}"\nkey = "{key}"\n')
        with running_node(home) as node:
            node.wait_ready()
            with node.client(node.key()) as client:
                answer = client.post("/v1/ocr", json=ocr_body(text_pdf("witnessed")))
                receipt = answer.headers["allod-receipt"]
                proof = tmp_path / "r.tlog-proof"
                public = str(home / "keys" / "ledger.pub")
                command = [*ALLOD, "receipt", "verify", str(proof), "--key", public]
                command += ["--witness", key, "--witnesses-needed", "1"]
                deadline = time.monotonic() + 40
                while True:
                    node.cli("receipt", "export", receipt, "--out", str(proof))
                    done = subprocess.run(command, capture_output=True, text=True, check=False)
                    if done.returncode == 0:
                        break
                    assert time.monotonic() < deadline, done.stderr
                    time.sleep(0.5)
                assert "witness.example" in done.stdout

                witness.kill()
                witness.wait()
                assert client.post("/v1/ocr", json=ocr_body(text_pdf("alone"))).status_code == 200
                while not any(c["name"].startswith("witness") for c in node.cli("status")["checks"]):
                    assert time.monotonic() < deadline + 40
                    time.sleep(0.5)
                assert node.cli("status")["ready"]
    finally:
        witness.kill()
        witness.wait()
