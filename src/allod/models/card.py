"""A model's card in words, as Markdown, for people who decide whether to use it.

Guarantees: says only what the papers say, and of what they do not say that it is unknown.
"""

from __future__ import annotations

from collections.abc import Mapping

from allod.models.lineage import UNKNOWN, Lineage
from allod.models.manifest import ModelManifest

_KINDS = {"chat": "answers conversations", "embed": "turns text into vectors", "ocr": "reads documents"}
ROLES = {
    "base-model": "base model",
    "dataset": "training data",
    "code": "code",
    "environment": "environment",
    "source-file": "source",
}
# The sections of the Commission's template for the public summary of training content (24 July 2025).
TRAINING = {
    "provider": "Provider",
    "modalities": "Modalities",
    "size": "Size",
    "languages": "Languages",
    "latest_data": "Newest data",
    "public_datasets": "Publicly available datasets",
    "licensed_datasets": "Datasets licensed from others",
    "other_private_datasets": "Other private datasets",
    "crawled": "Crawled and scraped data",
    "user_data": "Data from users",
    "synthetic": "Synthetic data",
    "other_sources": "Other sources",
    "rights_reservations": "Reservations of rights respected",
    "illegal_content": "Removal of illegal content",
}


def markdown(
    manifest: ModelManifest,
    lineage: Lineage,
    *,
    signature: str,
    chat_template: str,
    sizes: Mapping[str, int],
) -> str:
    """The card. `signature` says who signed it, or why it is not served."""
    origin = manifest.origin
    facts = {
        "It": _KINDS[manifest.kind],
        "Maker": origin.maker,
        "Maker's country": origin.country,
        "Licence": manifest.licence,
        "Came from": origin.source,
        "Format": f"{manifest.format}, {manifest.quantisation}",
        "Context": f"{manifest.context_tokens} tokens" if manifest.context_tokens else UNKNOWN,
        "Chat template": chat_template or "it carries none",
        "Signature": signature,
        "Digest": manifest.digest,
    }
    parts = [f"# {_text(manifest.name)}", ""]
    if manifest.test_model:
        parts += ["**A test model**: it shows that things work, not what models can do.", ""]
    parts += [_text(manifest.card) if manifest.card else "Nobody has said what it is fit for.", ""]
    parts += ["| | |", "|---|---|", *(f"| {name} | {_text(value)} |" for name, value in facts.items()), ""]
    parts += ["## Files", "", "| file | bytes | digest |", "|---|---|---|"]
    for name, value in sorted(manifest.files.items()):
        parts.append(f"| {_text(name)} | {sizes.get(name, 'missing')} | {value} |")
    parts += ["", "## How it was made", ""]
    made = {"How": lineage.how, "By": lineage.who, "With": lineage.builder, "Finished": lineage.finished}
    parts += [f"- {name}: {_text(value)}" for name, value in made.items()]
    parts += ["", "| what went in | name | digest | |", "|---|---|---|---|"]
    for material in lineage.materials:
        cells = (ROLES[material.role], material.name, material.digest, material.note)
        parts.append("| " + " | ".join(_text(c) for c in cells) + " |")
    parts += ["", "## Training content", ""]
    parts += ["After the template for Art. 53(1)(d) of the AI Act.", "", "| | |", "|---|---|"]
    for field, label in TRAINING.items():
        parts.append(f"| {label} | {_text(str(getattr(lineage.training, field)))} |")
    return "\n".join(parts) + "\n"


def _text(value: str) -> str:
    """Text of others, so that it stays text: no HTML, no table cell or line of its own, no link."""
    flat = " ".join(value.split())
    for mark in "\\|<>[]`*_":
        flat = flat.replace(mark, f"\\{mark}" if mark not in "<>" else {"<": "&lt;", ">": "&gt;"}[mark])
    return flat
