"""The bill of materials of a model: CycloneDX 1.7 as JSON, with a model card in it.

Guarantees: valid under the strict schema of CycloneDX 1.7, the same bytes for the same papers but for serial
number and time, and nothing in it that nobody stated: what is unknown is absent, or said to be unknown where
the schema takes words. Source: ECMA-424 / CycloneDX v1.7 JSON (`machine-learning-model`, `modelCard`).
"""

from __future__ import annotations

import re
import uuid
from functools import lru_cache
from typing import Any

from allod import __version__
from allod.errors import NotReady
from allod.models.lineage import UNKNOWN, Lineage, Material
from allod.models.manifest import ModelManifest
from allod.models.oms import Signed

SPEC = "1.7"
_ENGINE_TASKS = {"chat": "text-generation", "embed": "feature-extraction", "ocr": "image-to-text"}
_NAMESPACE = uuid.UUID("6f1f4a4e-2f0b-5c0e-9b8e-6d3a4c1f7e52")  # of serial numbers made from model digests


def document(
    manifest: ModelManifest, lineage: Lineage, signed: Signed | None, *, at: str, sizes: dict[str, int]
) -> dict[str, Any]:
    """The BOM of one model. `at` is RFC 3339, UTC; `sizes` are bytes by file name."""
    model = _model(manifest, lineage, signed, sizes)
    materials = [_component(number, m) for number, m in enumerate(lineage.materials)]
    return {
        "$schema": f"http://cyclonedx.org/schema/bom-{SPEC}.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": SPEC,
        "serialNumber": f"urn:uuid:{uuid.uuid5(_NAMESPACE, f'{manifest.digest} {at}')}",
        "version": 1,
        "metadata": {
            "timestamp": at,
            "tools": {"components": [{"type": "application", "name": "allod", "version": __version__}]},
            "component": model,
        },
        "components": materials,
        "dependencies": [
            {"ref": model["bom-ref"], "dependsOn": [m["bom-ref"] for m in materials]},
            *({"ref": m["bom-ref"]} for m in materials),
        ],
    }


def _model(
    manifest: ModelManifest, lineage: Lineage, signed: Signed | None, sizes: dict[str, int]
) -> dict[str, Any]:
    origin = manifest.origin
    found: dict[str, Any] = {
        "type": "machine-learning-model",
        "bom-ref": manifest.digest,
        "name": manifest.name,
        "version": manifest.digest,
        "description": manifest.card or "nothing is said of what it is fit for",
        "licenses": licences(manifest.licence),
        "components": [
            {
                "type": "file",
                "bom-ref": f"{manifest.digest}/{name}",
                "name": name,
                "hashes": [{"alg": "SHA-256", "content": value.removeprefix("sha256:")}],
                "properties": [{"name": "allod:bytes", "value": str(sizes[name])}] if name in sizes else [],
            }
            for name, value in sorted(manifest.files.items())
        ],
        "modelCard": _card(manifest, lineage),
        "properties": _properties(manifest, lineage, signed),
    }
    if origin.maker != UNKNOWN:
        found["supplier"] = {"name": origin.maker}
        if origin.country != UNKNOWN:
            found["supplier"]["address"] = {"country": origin.country}
    if not found["licenses"]:
        del found["licenses"]
    return found


def _card(manifest: ModelManifest, lineage: Lineage) -> dict[str, Any]:
    parameters: dict[str, Any] = {
        "task": _ENGINE_TASKS[manifest.kind],
        "inputs": [{"format": "image" if manifest.kind == "ocr" else "text"}],
        "outputs": [{"format": "vector" if manifest.kind == "embed" else "text"}],
    }
    datasets = [{"ref": _ref(number, m)} for number, m in enumerate(lineage.materials) if m.role == "dataset"]
    if datasets:
        parameters["datasets"] = datasets
    considerations: dict[str, Any] = {}
    if manifest.card:
        considerations["technicalLimitations"] = [manifest.card]
    return {"modelParameters": parameters} | ({"considerations": considerations} if considerations else {})


def _properties(manifest: ModelManifest, lineage: Lineage, signed: Signed | None) -> list[dict[str, str]]:
    training = {f"allod:training:{k}": v for k, v in _training(lineage).items()}
    pairs = {
        "allod:format": manifest.format,
        "allod:quantisation": manifest.quantisation,
        "allod:contextTokens": str(manifest.context_tokens or UNKNOWN),
        "allod:origin:country": manifest.origin.country,
        "allod:origin:source": manifest.origin.source,
        "allod:builtBy": lineage.builder,
        "allod:builtHow": lineage.how,
        "allod:testModel": "true" if manifest.test_model else "false",
        "allod:signedBy": signed.who if signed else "nobody who is trusted here",
        "allod:signatureKey": signed.key_id if signed else UNKNOWN,
        "allod:signatureRoot": signed.digest if signed else UNKNOWN,
        **training,
    }
    return [{"name": name, "value": value} for name, value in pairs.items()]


def _training(lineage: Lineage) -> dict[str, str]:
    return {name: str(getattr(lineage.training, name)) for name in lineage.training.__struct_fields__}


def _component(number: int, material: Material) -> dict[str, Any]:
    kinds = {"base-model": "machine-learning-model", "dataset": "data", "environment": "platform"}
    found: dict[str, Any] = {
        "type": kinds.get(material.role, "file"),
        "bom-ref": _ref(number, material),
        "name": material.name,
    }
    if material.digest != UNKNOWN:
        found["hashes"] = [{"alg": "SHA-256", "content": material.digest.removeprefix("sha256:")}]
    if material.uri.startswith("pkg:"):
        found["purl"] = material.uri
    elif re.match(r"https?://\S+$", material.uri):
        found["externalReferences"] = [{"type": "distribution", "url": material.uri}]
    if material.note:
        found["description"] = material.note
    if material.role == "dataset":
        found["data"] = [{"type": "dataset", "name": material.name}]
    return found


def _ref(number: int, material: Material) -> str:
    return f"{material.role}-{number}"


def licences(stated: str) -> list[dict[str, Any]]:
    """CycloneDX licence choices: an SPDX expression where it is one, else the name as it was stated."""
    if stated == UNKNOWN or not stated.strip():
        return []
    licensing = _licensing()
    try:
        return [{"expression": str(licensing.parse(stated, validate=True, strict=True))}]
    except Exception:  # whatever the library trips over, it is no SPDX expression
        return [{"license": {"name": stated}}]


@lru_cache(maxsize=1)  # reading SPDX's list takes a twentieth of a second
def _licensing() -> Any:
    """What knows SPDX's list. NotReady `models.not-installed`."""
    try:
        from license_expression import get_spdx_licensing
    except ImportError as e:
        raise NotReady(
            "models.not-installed", f"licences cannot be read here: {e}", hint='pip install "allod[models]"'
        ) from e
    return get_spdx_licensing()
