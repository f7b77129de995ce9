"""A model as an OCI artefact: one layer per file, in the media types of the CNCF ModelPack specification.

Guarantees: `manifest_of` of the same model gives the same bytes, and with them the same digest; reading one
takes no name and no size on trust. File names are given twice: `org.cncf.model.filepath` for ModelPack
tools, `org.opencontainers.image.title` for ORAS.
Source: CNCF ModelPack specification v1, OCI image specification v1.1.
"""

from __future__ import annotations

import hashlib
from typing import Annotated

import msgspec
from msgspec import Meta

from allod import digest
from allod.canonical import dumps
from allod.errors import Unprocessable
from allod.limits import MODEL_FILES_MAX
from allod.models.manifest import ALLOWED_SUFFIXES, ModelManifest
from allod.models.sources import RemoteFile

MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
ARTEFACT_TYPE = "application/vnd.cncf.model.manifest.v1+json"
CONFIG_TYPE = "application/vnd.cncf.model.config.v1+json"
_WEIGHT = "application/vnd.cncf.model.weight.v1.raw"
_WEIGHT_CONFIG = "application/vnd.cncf.model.weight.config.v1.raw"
_DOC = "application/vnd.cncf.model.doc.v1.raw"
_TITLE = "org.opencontainers.image.title"
_PATH = "org.cncf.model.filepath"


class Descriptor(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """What OCI says of a content."""

    media_type: str
    digest: Annotated[str, Meta(pattern=r"^sha256:[0-9a-f]{64}$")]
    size: Annotated[int, Meta(ge=0)]
    annotations: dict[str, str] = {}


class Manifest(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    schema_version: int
    media_type: str = ""
    artifact_type: str = ""
    config: Descriptor
    layers: Annotated[tuple[Descriptor, ...], Meta(max_length=MODEL_FILES_MAX)]
    annotations: dict[str, str] = {}


class Artefact(msgspec.Struct, frozen=True, kw_only=True):
    """A model ready to be pushed: `config` and `manifest` as bytes, `layers` by file name."""

    config: bytes
    manifest: bytes
    layers: dict[str, Descriptor]


def manifest_of(model: ModelManifest, sizes: dict[str, int], digests: dict[str, str]) -> Artefact:
    """The artefact of a model whose files have these sizes and digests. `digests` may name files beside the
    model's own (its signature)."""
    layers = {name: _layer(name, digests[name], sizes[name]) for name in sorted(digests)}
    config = dumps(
        {
            "descriptor": {"name": model.name, "licenses": [model.licence]},
            "config": {"format": model.format, "precision": model.quantisation},
            "modelfs": {"type": "layers", "diffIds": [layer.digest for layer in layers.values()]},
        }
    )
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "artifactType": ARTEFACT_TYPE,
        "config": {"mediaType": CONFIG_TYPE, "digest": digest.of(config), "size": len(config)},
        "layers": [msgspec.to_builtins(layer) for layer in layers.values()],
    }
    return Artefact(config=config, manifest=dumps(manifest), layers=layers)


def _layer(name: str, address: str, size: int) -> Descriptor:
    kind = _WEIGHT if name.endswith(ALLOWED_SUFFIXES) else _WEIGHT_CONFIG if name.endswith(".json") else _DOC
    named = {_TITLE: name, _PATH: name}
    return Descriptor(media_type=kind, digest=address, size=size, annotations=named)


def files_of(raw: bytes, promised: str = "") -> tuple[RemoteFile, ...]:
    """The files that an artefact's manifest lists. Raises Unprocessable `source.bad-manifest`.

    `promised` is the digest under which the manifest was asked for, where there was one.
    """
    if promised and f"sha256:{hashlib.sha256(raw).hexdigest()}" != promised:
        raise Unprocessable("source.bad-manifest", "the manifest is not the one with that digest")
    try:
        manifest = msgspec.json.decode(raw, type=Manifest)
    except msgspec.MsgspecError as e:
        raise Unprocessable("source.bad-manifest", f"this is no OCI manifest of one artefact: {e}") from e
    files = []
    for layer in manifest.layers:
        name = layer.annotations.get(_PATH) or layer.annotations.get(_TITLE)
        if not name:
            raise Unprocessable("source.bad-manifest", f"a layer has no file name: {layer.digest[:19]}")
        files.append(RemoteFile(name=name, size=layer.size, promise=layer.digest))
    return tuple(files)
