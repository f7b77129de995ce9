"""Putting an installed model into the configuration, and a running node to serve it.

Guarantees: the configuration is replaced whole, only by one that can be read, and everything in it stays as
it was written.
"""

from __future__ import annotations

import msgspec

from allod import config
from allod.cli.admin import Admin
from allod.config import Config, Home
from allod.config.schema import EmbeddingsService, LlmService, VllmService
from allod.errors import Unprocessable
from allod.ledger import files
from allod.models.manifest import ModelManifest
from allod.models.reference import LATEST


class Served(msgspec.Struct, frozen=True, kw_only=True):
    """What was done. `version` is the snapshot's, None where no node runs."""

    version: int | None
    said: str


def block(manifest: ModelManifest, tag: str) -> str:
    """The [[service]] that serves a model; "" where no engine here does."""
    if manifest.format == "gguf" and manifest.kind != "ocr":
        engine = "embeddings" if manifest.kind == "embed" else "llm"
    elif manifest.format == "safetensors" and manifest.kind != "ocr":
        engine = "vllm"
    else:
        return ""
    lines = ["[[service]]", f'model = "{manifest.name}"', f'engine = "{engine}"']
    if tag != LATEST:
        lines.append(f'weights = "{manifest.name}:{tag}"')
    if engine == "vllm" and manifest.kind == "embed":
        lines.append('kind = "embed"')
    return "\n".join(lines) + "\n"


def served(loaded: Config) -> tuple[str, ...]:
    """References of the models that the configured services need."""
    return tuple(
        service.weights or service.model
        for service in loaded.services
        if isinstance(service, LlmService | EmbeddingsService | VllmService)
    )


def serve(home: Home, manifest: ModelManifest, tag: str) -> Served:
    """Adds a service for the model and, where a node runs, has it take the configuration into force.

    Raises Unprocessable `engine.format`, Usage `config.invalid` (also where the name is served already by
    something else).
    """
    text = block(manifest, tag)
    if not text:
        raise Unprocessable(
            "engine.format",
            f"no engine here serves {manifest.name}: {manifest.format}, {manifest.kind}",
            hint="allod models show " + manifest.name,
        )
    loaded = config.load(home)
    wanted = manifest.name if tag == LATEST else f"{manifest.name}:{tag}"
    if wanted not in served(loaded):
        changed = home.config_file.read_text(encoding="utf-8").rstrip("\n") + f"\n\n{text}"
        config.parse(changed)
        files.replace(home.config_file, changed.encode(), mode=0o600)
    admin = Admin(home)
    if not admin.running:
        return Served(version=None, said=f"{manifest.name} is served from the next start on: allod up")
    version = admin.post("/admin/v1/reload", dict[str, int])["version"]
    return Served(version=version, said=f"{manifest.name} is served, as of snapshot {version}")
