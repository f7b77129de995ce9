"""Homes of nodes that really serve: the test chat model, embeddings, OCR, and a vLLM without a model."""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from running_node import ALLOD

from allod import digest
from allod.models import minilm, store
from allod.models.manifest import ModelManifest, files_digest
from allod.models.papers import sealing
from allod.models.testmodel import build as testmodel
from allod.models.trust import KEY_NAME

CHAT = testmodel.NAME
EMBED = minilm.NAME
OCR = "allod-ocr"
GPU = "ministral-3-8b"  # a name whose family vLLM has a tool parser for

_FAKE_VLLM = Path(__file__).with_name("fake_vllm.py")
_SERVICES = {
    OCR: 'engine = "ocr"\nrapidocr = false\nlanguages = ["eng"]',
    CHAT: 'engine = "llm"\ncontext_tokens = 3072\nparallel = 2',
    EMBED: 'engine = "embeddings"\nthreads = 1',
}


def served_home(folder: Path, services: Iterable[str] = (OCR,), *, site: str = "") -> Path:
    """`<folder>/home`, made by `allod init` and given these services. `site` is what its owner declares."""
    home = folder / "home"
    subprocess.run([*ALLOD, "init", "--home", str(home)], check=True, capture_output=True)
    config = home / "allod.toml"
    head = config.read_text().split("[site]")[0]
    tables = [_service(name, home, folder) for name in services]
    config.write_text(f"{head}[site]\n{site}\n" + "".join(tables))
    return home


def _service(name: str, home: Path, folder: Path) -> str:
    key = home / "keys" / KEY_NAME
    if name == CHAT:
        testmodel.build(home / "models", key=key)
    elif name == EMBED:
        minilm.build(home / "models", key=key)
    elif name == GPU:
        empty_model(folder / "weights", home / "models", key)
        program = vllm_environment(folder / "vllm")
        return f'\n[[service]]\nmodel = "{GPU}"\nengine = "vllm"\nprogram = "{program}"\n'
    return f'\n[[service]]\nmodel = "{name}"\n{_SERVICES[name]}\n'


def empty_model(folder: Path, models: Path, key: Path) -> None:
    """A safetensors model of no tensors, registered like any other."""
    folder.mkdir(parents=True)
    header = json.dumps({"__metadata__": {"format": "pt"}}).encode()
    weights = folder / "model.safetensors"
    weights.write_bytes(struct.pack("<Q", len(header)) + header)
    files = {weights.name: digest.of_file(weights)}
    manifest = ModelManifest(
        name=GPU, kind="chat", files=files, digest=files_digest(files), format="safetensors",
        context_tokens=4096, test_model=True, card="No weights: what answers is a script.",
    )  # fmt: skip
    store.place(models, manifest, {weights.name: weights}, seal=sealing(key))


def vllm_environment(root: Path) -> Path:
    """An environment laid out like vLLM's own, around the script that speaks its protocol; its program."""
    package = root / "lib" / "python3.11" / "site-packages" / "vllm-0.0.1.dist-info"
    package.mkdir(parents=True)
    (package / "RECORD").write_text("vllm/__init__.py,sha256=none,0\n")
    script = shutil.copy(_FAKE_VLLM, package.parent)
    program = root / "bin" / "vllm"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} {script} "$@"\n')
    program.chmod(0o755)
    return program
