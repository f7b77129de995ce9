"""What a configuration with instructions becomes, here and at a provider that serves the same model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from served_home import CHAT, GPU, served_home

from allod.app.services import Plan, plan
from allod.config import Home, load
from allod.models.instructions import Applied, Instructions
from allod.sites.load import load_sites

FAR = f"""
name = "far"

[provider]
base_url = "http://127.0.0.1:9"
api = "openai"
key = "env:NO_KEY_IS_NEEDED_TO_PLAN"

[provider.models."{CHAT}"]
kind = "chat"
"""


def _plan(home: Home) -> Plan:
    return plan(load(home), home, load_sites(home.sites))


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = Home(served_home(tmp_path, (CHAT, GPU)))
    (made.sites / "far.toml").write_text(FAR)
    kept = Instructions(made.instructions)
    kept.add("brief@1", b"Be brief.", "system-prompt", author="ana", now_us=0)
    kept.approve("brief@1", by="ana", now_us=0)
    return made


def _instruct(home: Home, engine: str, more: str = "") -> None:
    text = home.config_file.read_text()
    line = f'engine = "{engine}"\n'
    home.config_file.write_text(text.replace(line, f'{line}instructions = "brief@1"\n{more}'))


def test_a_provider_is_told_the_same_prompt_and_its_template_stays_unknown(home: Home) -> None:
    plain = _plan(home).services[CHAT]
    assert (plain.system_prompt, [r.site for r in plain.replicas]) == ("", ["local", "far"])
    assert set(plain.instructions) == {f"{CHAT}-0"}  # of the provider nothing is known, so nothing is said

    _instruct(home, "llm")
    told = _plan(home).services[CHAT]
    assert told.system_prompt == "Be brief."
    here, _, template = Instructions(home.instructions).applied(told.instructions[f"{CHAT}-0"])
    assert "messages" in template
    assert told.instructions["far-egress"] == Applied(system_prompt=here.system_prompt).digest


def test_four_eyes_are_four(home: Home) -> None:
    _instruct(home, "llm")
    home.config_file.write_text(home.config_file.read_text() + "\n[instructions]\nfour_eyes = true\n")
    codes = {f.model: f.error.code for f in _plan(home).failed}
    assert codes == {CHAT: "instructions.not-approved"}
    Instructions(home.instructions).approve("brief@1", by="ben", now_us=0)
    assert _plan(home).failed == ()


def test_what_cannot_be_told_anything_is_not_served_without_it(home: Home) -> None:
    _instruct(home, "vllm", 'kind = "embed"\n')
    assert [f.error.code for f in _plan(home).failed] == ["instructions.not-a-chat"]


def test_without_a_readable_trust_store_no_model_is_served_and_each_says_why(home: Home) -> None:
    assert _plan(home).failed == ()
    (home.trust / "broken.toml").write_text("models = 1")
    failed = _plan(home).failed
    assert {(f.model, f.error.code) for f in failed} == {(CHAT, "trust.invalid"), (GPU, "trust.invalid")}
    assert json.dumps([f.error.as_dict() for f in failed])
