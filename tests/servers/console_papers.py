"""Papers of models for the console's tests: signed, refused, of many parts, and hostile ones."""

from __future__ import annotations

from allod import digest
from allod.api.ports import ModelPapersView, Told
from allod.errors import NotFound
from allod.models.lineage import Lineage, Material, TrainingContent
from allod.models.manifest import ModelManifest, Origin, files_digest
from allod.models.oms import Signed

_FILES = {"model.safetensors": digest.of(b"weights"), "tokenizer.json": digest.of(b"{}")}
_SIGNED = Signed(
    who="organisation", key_id=digest.of(b"key"), digest=digest.of(b"root"), method="key", files=_FILES
)


def papers(name: str, hostile: str) -> ModelPapersView:
    """By the names that the test node's status shows. NotFound for others."""
    if name == "ministral-3b":
        return _view(name, Origin(maker="Mistral AI", country="FR", source="hub"), _lineage(), signed=_SIGNED)
    if name == "house-test":
        return _view(name, Origin(), Lineage(files=_FILES), signed=None, told=())
    if name == hostile[:64]:
        parts = tuple(Material(role="dataset", name=hostile, note=hostile) for _ in range(3))
        origin = Origin(maker=hostile, country="XX", source=hostile)
        return _view(name, origin, Lineage(files=_FILES, how=hostile, materials=parts), signed=_SIGNED)
    raise NotFound("model.not-found", f"there is no model {name[:64]!r}", hint="allod models ls")


def _lineage() -> Lineage:
    base = Material(role="base-model", name="ministral-3b-base", digest=digest.of(b"base"))
    sets = tuple(Material(role="dataset", name=f"set-{n}", note="named by its card") for n in range(5))
    return Lineage(
        files=_FILES,
        how="fine-tuned on letters of the ward",
        builder="allod 0.1.0",
        who="the ward's own team",
        finished="2026-10-02T08:00:00.000Z",
        materials=(base, *sets),
        training=TrainingContent(languages="fr, de", crawled="none"),
    )


_TOLD = Told(
    service="ministral-3b",
    digest=digest.of(b"instructions"),
    reference="ward@3",
    system_prompt="Answer in the patient's language.\nNever name a dose.",
)


def _view(
    name: str,
    origin: Origin,
    lineage: Lineage,
    *,
    signed: Signed | None,
    told: tuple[Told, ...] = (_TOLD,),
) -> ModelPapersView:
    manifest = ModelManifest(
        name=name, kind="chat", files=_FILES, digest=files_digest(_FILES), format="safetensors",
        origin=origin, licence="Apache-2.0" if signed else "unknown",
        context_tokens=32_768 if signed else None,
    )  # fmt: skip
    return ModelPapersView(
        manifest=manifest,
        lineage=lineage,
        lineage_stated=lineage.how != "unknown",
        signed=signed,
        refusal="" if signed else f"{name} has no signature, so it is not served [model.unsigned]",
        publisher="",
        chat_template=digest.of(b"template") if signed else "",
        sizes={"model.safetensors": 2_913_000_000},
        told=told,
    )
