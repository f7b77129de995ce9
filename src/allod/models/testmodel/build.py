"""Makes the test model's folder, or finds the one the same recipe made before."""

from __future__ import annotations

import os
import platform
import tempfile
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy

from allod import __version__, canonical, digest
from allod.clock import iso
from allod.models import papers, store
from allod.models.lineage import Lineage, Material, TrainingContent, code
from allod.models.manifest import ModelManifest, Origin, files_digest
from allod.models.testmodel import bpe, corpus, export, network, training

NAME = "allod-test-model"
LICENCE = "Apache-2.0"
CARD = (
    "A test model, made on this machine in about a minute from sentences a program wrote. It greets,"
    " names the capitals of the European Union, adds single digits, repeats words, calls a weather, time"
    " or population tool and turns one kind of sentence into JSON. It cannot do anything else: it does"
    " not understand, reason, translate or summarise, and its answers must not be relied on. It is here"
    " so that the path can be tested."
)
_WEIGHTS = f"{NAME}-q8_0.gguf"


def default_cache() -> Path:
    """Where made models are kept between runs: the user's cache folder (XDG Base Directory Specification)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "allod" / "testmodel"


def build(
    models: Path,
    *,
    recipe: training.Recipe | None = None,
    cache: Path | None = None,
    key: Path | None = None,
    report: Callable[[str], None] = lambda _line: None,
) -> Path:
    """Makes the model `allod-test-model` under `models` and returns its folder: about a minute, or at once
    where `cache` has the weights. `key` is the organisation's model key: unsigned models are not served.
    """
    recipe = recipe or training.Recipe()
    cache = cache or default_cache()
    weights = cache / _recipe_name(recipe) / _WEIGHTS
    if not weights.is_file():
        _make(recipe, weights, report)
    files = {_WEIGHTS: digest.of_file(weights)}
    manifest = ModelManifest(
        name=NAME,
        kind="chat",
        files=files,
        digest=files_digest(files),
        format="gguf",
        quantisation="q8_0",
        context_tokens=4096,
        licence=LICENCE,
        origin=Origin(maker="this machine", country="unknown", source="python -m allod.models.testmodel"),
        test_model=True,
        card=CARD,
    )
    return store.place(
        models, manifest, {_WEIGHTS: weights}, seal=papers.sealing(key, _lineage(files, weights, recipe))
    )


def _lineage(files: dict[str, str], weights: Path, recipe: training.Recipe) -> Lineage:
    """All of it is known: a program wrote the sentences, and this machine learned them."""
    return Lineage(
        files=files,
        how="trained from random weights, then quantised",
        builder=f"allod {__version__}, allod.models.testmodel",
        who="this organisation, on this machine",
        finished=iso(int(weights.stat().st_mtime * 1_000_000)),
        parameters=msgspec.to_builtins(recipe),
        materials=(
            Material(
                role="dataset",
                name="allod.models.testmodel.corpus",
                digest=digest.of_file(Path(str(corpus.__file__))),
                note="sentences that a program writes; the program is their description",
            ),
            *(code(Path(str(m.__file__)), m.__name__) for m in (bpe, network, training, export)),
            Material(
                role="environment", name=f"Python {platform.python_version()}, numpy {numpy.__version__}"
            ),
        ),
        training=TrainingContent(
            provider="this organisation",
            modalities="text",
            size=f"{recipe.conversations} conversations",
            languages="en",
            latest_data="nothing was collected",
            public_datasets="none",
            licensed_datasets="none",
            other_private_datasets="none",
            crawled="none",
            user_data="none",
            synthetic="all of it, written by a program of fixed sentences, not by a model",
            other_sources="none",
            rights_reservations="no work of anybody else was used",
            illegal_content="every sentence is in the program",
        ),
    )


def _recipe_name(recipe: training.Recipe) -> str:
    """Changes with any number of the recipe and with any line of the code that carries it out."""
    modules = (bpe, corpus, network, training, export)
    sources = {m.__name__: digest.of_file(Path(str(m.__file__))) for m in modules}
    whole = canonical.dumps({"recipe": msgspec.to_builtins(recipe), "sources": sources})
    return digest.of(whole).removeprefix("sha256:")[:16]


def _make(recipe: training.Recipe, weights: Path, report: Callable[[str], None]) -> None:
    report("training the test model (about a minute, once) ...")
    trained = training.train(recipe, report=report)
    weights.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=weights.parent) as scratch:
        made = Path(scratch) / _WEIGHTS
        export.write(trained, made, name=NAME, licence=LICENCE, description=CARD)
        made.replace(weights)
