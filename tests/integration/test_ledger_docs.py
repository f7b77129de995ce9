"""What docs/receipts.md tells an auditor to run, run as written, without this project's code."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

from ledger_worker import make_intent, signers

from allod.clock import SystemClock
from allod.ledger import intent, statement
from allod.ledger.log import Log
from allod.ledger.segment import Entry

DOCS = Path(__file__).parents[2] / "docs/receipts.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", DOCS.read_text(), re.DOTALL)


def run(argv: list[str], cwd: Path) -> str:
    done = subprocess.run(
        argv, cwd=cwd, capture_output=True, text=True, check=False, env={"PATH": "/usr/bin:/bin"}
    )
    return done.stdout + done.stderr


def test_the_documented_commands_verify_and_refuse(tmp_path: Path) -> None:
    clock = SystemClock()
    keys = signers(tmp_path)
    log = Log.open(tmp_path / "ledger", keys, clock)
    made = [make_intent(clock) for _ in range(700)]
    log.append([Entry(i.id, statement.encode(intent.interrupted(i, clock.now_us())), i.key) for i in made])
    (tmp_path / "checkpoint").write_bytes(log.checkpoint())
    signature, path = (["-I", "-c", code] for code in blocks("python"))
    openssl = shlex.split(next(b for b in blocks("sh") if b.startswith("openssl")))

    assert run([sys.executable, *signature, str(keys[0].vkey)], tmp_path) == ""
    assert "Verified Successfully" in run(openssl, tmp_path)
    (tmp_path / "text").write_bytes((tmp_path / "text").read_bytes().replace(b"\n700\n", b"\n701\n"))
    assert "Verified Successfully" not in run(openssl, tmp_path)

    for index in (0, 255, 256, 699):
        (tmp_path / "leaf.json").write_bytes(log.leaf(index))
        (tmp_path / "leaf.tlog-proof").write_text(log.proof(index).encode())
        argv = [sys.executable, *path, "leaf.json", "leaf.tlog-proof"]
        assert run(argv, tmp_path) == "proven\n"
        (tmp_path / "leaf.json").write_bytes(log.leaf(index).replace(b'"internal"', b'"public"') + b" ")
        assert run(argv, tmp_path) == "NOT proven\n"
