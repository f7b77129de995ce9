"""The papers of a model as the faces are shown them: what its folder says, and what this node tells it."""

from __future__ import annotations

from allod.api.ports import ModelPapersView, Told
from allod.app.services import Plan
from allod.config import Config, EmbeddingsService, Home, OcrService
from allod.models import papers, store, trust
from allod.models.manifest import ModelManifest


def view(home: Home, config: Config, plan: Plan, name: str) -> ModelPapersView:
    """By the name of a service or of an installed model. Reads every byte that was not read before.

    Raises NotFound `model.not-found`, Usage `trust.invalid`, and as `papers.of` on malformed papers.
    """
    weights = {s.model: s.weights or s.model for s in config.services if not isinstance(s, OcrService)}
    one = store.look_up(home.models, weights.get(name, name))
    found = papers.of(one.folder, one.manifest, trust.load(home.trust))
    return ModelPapersView(
        manifest=found.manifest,
        lineage=found.lineage,
        lineage_stated=found.lineage_stated,
        signed=found.signed,
        refusal=f"{found.refusal.message} [{found.refusal.code}]" if found.refusal else "",
        publisher=found.publisher.who if found.publisher else "",
        chat_template=found.chat_template,
        sizes=found.sizes,
        told=_told(config, plan, one.manifest),
    )


def _told(config: Config, plan: Plan, manifest: ModelManifest) -> tuple[Told, ...]:
    """Each service that runs this model here, and what it tells it."""
    told = []
    for service in config.services:
        entry = plan.services.get(service.model)
        if isinstance(service, OcrService) or entry is None:
            continue
        here = next((r.id for r in entry.replicas if r.model_digest == manifest.digest), None)
        if here is None:
            continue
        told.append(
            Told(
                service=service.model,
                digest=entry.instructions.get(here, ""),
                reference="" if isinstance(service, EmbeddingsService) else service.instructions,
                system_prompt=entry.system_prompt,
            )
        )
    return tuple(told)
