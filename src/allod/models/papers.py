"""The papers of a model: whether it may be served, and what is handed to whoever asks about it.

Guarantees: `gate` is the one way to a served model. It passes only what a trusted publisher signed, file by
file, and whose manifest says the same; there is no switch that turns it off. What `of` gathers is read from
the model's folder at that moment and says of everything that is missing that it is.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec

from allod import digest
from allod.errors import AllodError, Integrity
from allod.models import bom, card, instructions, lineage, oms
from allod.models.lineage import Lineage
from allod.models.manifest import MANIFEST_NAME, PUBLISHER_SIGNATURE_NAME, ModelManifest
from allod.models.oms import Signed
from allod.models.trust import Trust


def sealing(key: Path | None, made: Lineage | None = None) -> Callable[[Path], None]:
    """What `store.publish` does to a new model's folder before anybody sees it: the lineage is put in, where
    it is known, and the whole is signed with the organisation's `key`. Without one it stays unsigned.
    """

    def seal(folder: Path) -> None:
        if made is not None:
            lineage.write(folder, made)
        if key is not None:
            oms.sign_folder(folder, key)

    return seal


def gate(folder: Path, manifest: ModelManifest, trust: Trust) -> Signed:
    """Passes a model that may be served. Raises Integrity as `oms.verify_folder`, and `model.changed` where
    the manifest and the signature speak of different files.
    """
    signed = oms.verify_folder(folder, trust, name=manifest.name)
    for name, stated in sorted(manifest.files.items()):
        if signed.files.get(name) != stated:
            raise Integrity(
                "model.changed",
                f"{manifest.name}: {MANIFEST_NAME} states another {name} than {signed.who} signed",
                hint="add the model again from a source you trust",
                file=name,
            )
    return signed


class Papers(msgspec.Struct, frozen=True, kw_only=True):
    """All that is known of one model."""

    manifest: ModelManifest
    lineage: Lineage
    lineage_stated: bool  # False: nobody wrote down how it was made
    signed: Signed | None
    refusal: AllodError | None  # why it is not served, where it is not
    publisher: Signed | None  # whose signature came with it, if it still counts
    chat_template: str  # digest of the model's own; empty where it has none
    sizes: dict[str, int]  # bytes by file name


def of(folder: Path, manifest: ModelManifest, trust: Trust) -> Papers:
    """Gathers a model's papers. Raises only on malformed ones: a missing or refused signature is said."""
    signed, refusal = None, None
    try:
        signed = gate(folder, manifest, trust)
    except AllodError as e:
        refusal = e
    template = instructions.template_of(folder, manifest)
    files = {name: folder / name for name in manifest.files}
    return Papers(
        manifest=manifest,
        lineage=lineage.of(folder, manifest),
        lineage_stated=lineage.is_stated(folder),
        signed=signed,
        refusal=refusal,
        publisher=_publisher(folder, manifest, trust),
        chat_template=digest.of(template.encode()) if template else "",
        sizes={name: path.stat().st_size for name, path in files.items() if path.exists()},
    )


def _publisher(folder: Path, manifest: ModelManifest, trust: Trust) -> Signed | None:
    path = folder / PUBLISHER_SIGNATURE_NAME
    try:
        signed = oms.verify_signature(path.read_bytes(), trust, name=manifest.name)
    except (FileNotFoundError, Integrity):
        return None
    vouched = all(signed.files.get(name) == value for name, value in manifest.files.items())
    return signed if vouched else None


FORMS = ("bom", "card", "lineage")


def files(papers: Papers, *, at: str) -> dict[str, bytes]:
    """Every form of a model's papers, by form; `at` is RFC 3339, UTC."""
    document = bom.document(papers.manifest, papers.lineage, papers.signed, at=at, sizes=papers.sizes)
    return {
        "bom": msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n",
        "card": card.markdown(
            papers.manifest,
            papers.lineage,
            signature=signature_in_words(papers),
            chat_template=papers.chat_template,
            sizes=papers.sizes,
        ).encode(),
        "lineage": lineage.statement(papers.lineage) + b"\n",
    }


FILE_NAMES = {"bom": "bom.cdx.json", "card": "card.md", "lineage": "lineage.intoto.json"}


def signature_in_words(papers: Papers) -> str:
    if papers.signed is not None:
        return f"signed by {papers.signed.who} ({papers.signed.method} {papers.signed.key_id[:19]}…)"
    assert papers.refusal is not None
    return f"not served: {papers.refusal.message} [{papers.refusal.code}]"
