"""README shows what the commands really print: its blocks are compared with a run, ids and times aside."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from running_node import ALLOD

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()

_VARIES = (
    (r"(\S*/)?\.allod\b|\S+/home", "HOME"),
    (r"r-[0-9A-Z]{26}", "RECEIPT"),
    (r"allod_\w{12}_[\w-]{43}", "KEY"),
    (r"\d{4}-\d\d-\d\dT[\d:.]+Z", "TIME"),
    (r"127\.0\.0\.1:\d+", "ADDRESS"),
    (r"allod\.local/\w{8}", "ORIGIN"),
)


def _same(text: str) -> list[str]:
    for pattern, name in _VARIES:
        text = re.sub(pattern, name, text)
    return [line.rstrip() for line in text.strip().splitlines()]


def _block(containing: str) -> str:
    blocks: list[str] = re.findall(r"^```\n(.*?)^```$", README, re.M | re.S)
    return next(b for b in blocks if containing in b)


def test_the_first_five_minutes_are_as_printed(tmp_path_factory: pytest.TempPathFactory) -> None:
    home = tmp_path_factory.mktemp("readme") / "home"
    try:
        example = [sys.executable, str(ROOT / "examples" / "first_receipt.py"), "--home", str(home)]
        ran = subprocess.run(
            [*example, "--listen", "127.0.0.1:0"], capture_output=True, text=True, timeout=300, check=False
        )
        assert ran.returncode == 0, ran.stderr
        assert _same(ran.stdout) == _same(_block("1. A node on this machine"))
        explain = _block("$ .venv/bin/allod policy explain")
        command, _, printed = explain.partition("\n")
        words = command.removeprefix("$ .venv/bin/allod ").replace(".allod", str(home)).split()
        wide = {**os.environ, "COLUMNS": "100"}
        told = subprocess.run([*ALLOD, *words], capture_output=True, text=True, env=wide, check=False)
        assert _same(told.stdout) == _same(printed)
    finally:
        subprocess.run([*ALLOD, "down", "--home", str(home)], capture_output=True, timeout=60, check=False)


def test_every_page_that_readme_names_is_there() -> None:
    for target in re.findall(r"\]\(([^)#]+)", README):
        assert (ROOT / target).exists(), target
