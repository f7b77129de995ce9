"""The manifest of a model: which files it is, what they are, where they came from.

`model.json` lies beside the files. A model's digest is the SHA-256 of the RFC 8785 form of its name-to-digest
map, so it changes when any byte of any file does, and not when a description is corrected.
"""

from __future__ import annotations

import re
from typing import Literal

import msgspec

from allod import canonical, digest
from allod.errors import Unprocessable
from allod.limits import NAME_CHARS_MAX

MANIFEST_NAME = "model.json"
ALLOWED_SUFFIXES = (".gguf", ".safetensors", ".onnx")  # what is executed as weights
COMPANION_NAMES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "config.json",
    "generation_config.json",
    "vocab.txt",
    "README.md",
    "LICENSE",
)
PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".npy", ".npz")

ModelKind = Literal["chat", "embed", "ocr"]
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """Who made the model. "unknown" where nobody has said."""

    maker: str = "unknown"
    country: str = "unknown"  # ISO 3166-1 alpha-2 of the maker's seat
    source: str = "unknown"  # where the files came from: a path, a package and version, a URL


class ModelManifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    name: str
    kind: ModelKind
    files: dict[str, str]  # file name in the model's folder -> "sha256:<hex>"
    digest: str
    format: str  # "gguf", "safetensors" or "onnx"
    quantisation: str = "unknown"
    context_tokens: int | None = None
    licence: str = "unknown"  # SPDX identifier
    origin: Origin = Origin()
    test_model: bool = False
    card: str = ""  # what it is and is not fit for, for people
    aliases: tuple[str, ...] = ()

    @property
    def weights(self) -> str:
        """The file an engine is pointed at: the first one with an allowed suffix."""
        return next(name for name in sorted(self.files) if name.endswith(ALLOWED_SUFFIXES))


def files_digest(files: dict[str, str]) -> str:
    """The digest of a model made of these files."""
    return digest.of(canonical.dumps(files))


def check(manifest: ModelManifest) -> ModelManifest:
    """Returns the manifest if everything it says is allowed. Raises Unprocessable, naming what is not."""
    for name in (manifest.name, *manifest.aliases):
        if len(name) > NAME_CHARS_MAX or not _NAME.fullmatch(name):
            raise Unprocessable(
                "model.bad-name",
                f"{name!r} is no model name",
                hint=f"lower-case letters, digits, '.', '_' and '-', at most {NAME_CHARS_MAX}",
            )
    for name, value in manifest.files.items():
        check_file_name(name)
        if not _DIGEST.fullmatch(value):
            raise Unprocessable("model.bad-digest", f"{manifest.name}: {name} has no sha256 digest")
    if not any(name.endswith(ALLOWED_SUFFIXES) for name in manifest.files):
        raise Unprocessable(
            "model.no-weights",
            f"{manifest.name} has no file of an allowed format: {', '.join(ALLOWED_SUFFIXES)}",
        )
    if manifest.digest != files_digest(manifest.files):
        raise Unprocessable("model.bad-digest", f"{manifest.name}: the digest does not belong to its files")
    return manifest


def check_file_name(name: str) -> None:
    """Raises Unprocessable unless a file of this name may be part of a model."""
    if "/" in name or name.startswith(".") or "\0" in name or not name.isprintable():
        raise Unprocessable("model.bad-file-name", f"{name!r} is no plain file name")
    if name.endswith(PICKLES):
        raise Unprocessable(
            "model.pickle",
            f"{name} is in a format that can run code when it is opened",
            hint="use the same model as safetensors, GGUF or ONNX",
        )
    if not name.endswith(ALLOWED_SUFFIXES) and name not in COMPANION_NAMES:
        raise Unprocessable(
            "model.format",
            f"{name} is not a file a model may have",
            hint=f"weights end in {', '.join(ALLOWED_SUFFIXES)}; beside them: {', '.join(COMPANION_NAMES)}",
        )
