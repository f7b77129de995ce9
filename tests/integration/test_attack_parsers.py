"""Hostile policy files: each is read in a process of its own, because the failure would be its death."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from allod.policy import pack
from allod.policy.rules import read

RULE = '@id("x") @reason("r") permit(principal, action, resource) when {{ {} }};'
HOSTILE = {
    "brackets": "(" * 30_000 + "true" + ")" * 30_000,
    "a few hundred brackets": "(" * 900 + "true" + ")" * 900,
    "denials": "!(" * 5_000 + "true" + ")" * 5_000,
    "sets": "[" * 5_000 + "1" + "]" * 5_000,
    "a chain of conditions": "true && " * 30_000 + "true",
    "a shorter chain": "true && " * 950 + "true",
    "branches": "if true then " * 5_000 + "true" + " else false" * 5_000,
    "a chain of attributes": "resource" + ".a" * 30_000 + " == 1",
    "sums": "1+" * 3_900 + "1 == 1",
    "unclosed": "(" * 30_000,
    "unclosed in a string": '"' + "(" * 30_000,
}
READER = """
import sys
from allod.errors import Unprocessable
from allod.policy.rules import read
try:
    read(open(sys.argv[1]).read(), open(sys.argv[2]).read())
except Unprocessable as e:
    print(e.code)
"""


@pytest.fixture(scope="module")
def schema(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("policy")
    pack.install(folder)
    path = folder / "alone.cedarschema"
    path.write_text(pack.load(folder).schema)
    return path


@pytest.mark.parametrize("hostile", HOSTILE)
def test_a_hostile_rule_is_refused_and_ends_nothing(schema: Path, tmp_path: Path, hostile: str) -> None:
    text = tmp_path / "hostile.cedar"
    text.write_text(RULE.format(HOSTILE[hostile]))
    told = subprocess.run(
        [sys.executable, "-c", READER, str(text), str(schema)],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert (told.returncode, told.stdout.strip()) == (0, "policy.invalid"), told.stderr[-500:]


def test_brackets_in_words_and_comments_do_not_count(schema: Path) -> None:
    words = f'@reason_de("{"(" * 90}") // {"[" * 90}\n'
    rule = '@id("x") @reason("r") ' + words + "permit(principal, action, resource) when { " + "(" * 20
    assert len(read(rule + "true" + ")" * 20 + " };", schema.read_text()).rules) == 1
