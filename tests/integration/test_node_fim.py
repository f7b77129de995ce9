"""Filling a gap over a whole node: by the markers a model declares, and not at all without them."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from mistralai.client import Mistral
from mistralai.client.errors import HTTPValidationError
from running_node import ALLOD, RunningNode, running_node

from allod.models import store
from allod.models.fim import FimForm
from allod.models.papers import sealing
from allod.models.testmodel import build as testmodel
from allod.models.trust import KEY_NAME

FILLER = "filler"


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningNode]:
    home = tmp_path_factory.mktemp("node") / "home"
    subprocess.run([*ALLOD, "init", "--home", str(home)], check=True, capture_output=True)
    key = home / "keys" / KEY_NAME
    plain = testmodel.build(home / "models", key=key)
    _declared(plain, home / "models", key)
    config = home / "allod.toml"
    services = "".join(
        f'\n[[service]]\nmodel = "{name}"\nengine = "llm"\ncontext_tokens = 512\nparallel = 1\nthreads = 1\n'
        for name in (testmodel.NAME, FILLER)
    )
    config.write_text(config.read_text().split("[[service]]")[0] + services)
    with running_node(home) as running:
        running.wait_ready()
        yield running


def _declared(plain: Path, models: Path, key: Path) -> None:
    """The same weights under another name, whose manifest says how gaps are marked."""
    manifest = msgspec.structs.replace(
        store.load(plain),
        name=FILLER,
        fim=FimForm(prefix="[PREFIX]", suffix="[SUFFIX]", suffix_first=True),
    )
    store.place(models, manifest, {name: plain / name for name in manifest.files}, seal=sealing(key))


def test_a_model_with_markers_fills_a_gap_and_one_without_refuses_the_suffix(node: RunningNode) -> None:
    sdk = Mistral(api_key=node.key(), server_url=node.url)
    answer = sdk.fim.complete(model=FILLER, prompt="The capital of France", suffix=".", max_tokens=8)
    assert answer.choices[0].message.content
    assert answer.usage.completion_tokens
    with pytest.raises(HTTPValidationError) as refused:
        sdk.fim.complete(model=testmodel.NAME, prompt="The capital of France", suffix=".", max_tokens=8)
    assert refused.value.status_code == 422
    cards = {card.id: card.capabilities.completion_fim for card in sdk.models.list().data or []}
    assert cards[FILLER]
    assert not cards[testmodel.NAME]
