"""The manifest of a model: which files it is, what they are, where they came from.

`model.json` lies beside the files. A model's digest is the SHA-256 of the RFC 8785 form of its name-to-digest
map, so it changes when any byte of any file does, and not when a description is corrected.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from allod import canonical, digest
from allod.errors import Unprocessable
from allod.limits import MODEL_FILES_MAX
from allod.models.fim import FimForm
from allod.models.reference import DIGEST, check_name

MANIFEST_NAME = "model.json"
SIGNATURE_NAME = "model.sig"  # OpenSSF Model Signing, beside the files it signs
PUBLISHER_SIGNATURE_NAME = "publisher.sig"  # the one that the files came with
LINEAGE_NAME = "lineage.json"  # an in-toto statement of how the model was made
ALLOWED_SUFFIXES = (".gguf", ".safetensors", ".onnx")  # what is executed as weights
COMPANIONS = (
    "vocab.txt", "merges.txt", "tokenizer.model", "sentencepiece.bpe.model", "spiece.model",
    "chat_template.jinja", "README.md", "USE_POLICY.md", "SECURITY.md",
)  # fmt: skip
COMPANION_PREFIXES = ("LICENSE", "LICENCE", "NOTICE", "COPYING")
PICKLES = (
    ".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".npy", ".npz", ".h5", ".keras", ".nemo",
)  # fmt: skip
PROGRAMS = (".py", ".pyc", ".so", ".sh", ".dll", ".dylib", ".exe", ".js", ".jar", ".ipynb", ".whl")

ModelKind = Literal["chat", "embed", "ocr"]


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
    fim: FimForm | None = None  # declared here where the weights do not carry it (safetensors)

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
        check_name(name)
    if len(manifest.files) > MODEL_FILES_MAX:
        raise Unprocessable(
            "model.too-many-files", f"{manifest.name} has {len(manifest.files)} files of {MODEL_FILES_MAX}"
        )
    for name, value in manifest.files.items():
        check_file_name(name)
        if not DIGEST.fullmatch(value):
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
    """Raises Unprocessable unless a file of this name may be part of a model.

    The manifest and the signature are not part: they speak about the files.
    """
    if "/" in name or name.startswith(".") or not name or not name.isprintable() or len(name.encode()) > 255:
        raise Unprocessable("model.bad-file-name", f"{name!r} is no plain file name")
    if name.lower().endswith(PICKLES):
        raise Unprocessable(
            "model.pickle",
            f"{name} is in a format that can run code when it is opened",
            hint="use the same model as safetensors, GGUF or ONNX",
        )
    if name.lower().endswith(PROGRAMS):
        raise Unprocessable(
            "model.remote-code",
            f"{name} is a program; nothing that comes with a model is ever run",
            hint="use a model that its engine knows by itself",
        )
    if name in (MANIFEST_NAME, SIGNATURE_NAME, PUBLISHER_SIGNATURE_NAME, LINEAGE_NAME):
        raise Unprocessable("model.bad-file-name", f"{name} is never one of a model's own files")
    data = name.endswith((*ALLOWED_SUFFIXES, ".json"))
    if not (data or name in COMPANIONS or name.startswith(COMPANION_PREFIXES)):
        raise Unprocessable(
            "model.format",
            f"{name} is not a file a model may have",
            hint=f"weights are {', '.join(ALLOWED_SUFFIXES)}; beside them: *.json, {', '.join(COMPANIONS)}",
        )
