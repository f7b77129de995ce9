"""What a bundle says of itself: `manifest.json`, in RFC 8785 form.

Guarantees: `parse` gives back only a manifest whose every path is one that its kind allows, so none leads out
of a home and none is there twice; and that is written in the one spelling that `encode` gives, so no two
files mean the same bundle.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from allod import canonical
from allod.errors import Unprocessable
from allod.limits import BUNDLE_FILES_MAX

Kind = Literal["blob", "model", "policy", "site", "instruction", "trust", "wheel", "lock", "services"]

_NAME = r"[A-Za-z0-9_][A-Za-z0-9._+-]{0,199}"  # wheels for several kinds of machine have the longest names
_PATHS: dict[Kind, re.Pattern[str]] = {
    "blob": re.compile(r"blobs/sha256/[0-9a-f]{64}"),
    "model": re.compile(rf"models/[a-z0-9][a-z0-9._-]{{0,63}}/[0-9a-f]{{64}}/{_NAME}"),
    "policy": re.compile(rf"policy/({_NAME}\.cedar|schema\.cedarschema)"),
    "site": re.compile(rf"sites/{_NAME}\.toml"),
    "instruction": re.compile(rf"instructions/[a-z0-9][a-z0-9._-]{{0,63}}/{_NAME}\.(md|jinja|json)"),
    "trust": re.compile(r"trust/[a-z0-9][a-z0-9-]{0,63}\.(toml|pem)"),
    "wheel": re.compile(rf"wheels/{_NAME}\.whl"),
    "lock": re.compile(rf"wheels/{_NAME}\.lock"),
    "services": re.compile(r"config/services\.toml"),
}
_Digest = Annotated[str, Meta(pattern=r"^sha256:[0-9a-f]{64}$")]
_Size = Annotated[int, Meta(ge=0, le=2**53 - 1)]  # what JSON numbers carry exactly


class _Closed(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class File(_Closed, frozen=True):
    """One member. `size` in bytes."""

    path: Annotated[str, Meta(max_length=360)]
    size: _Size
    sha256: _Digest
    kind: Kind


class Model(_Closed, frozen=True):
    """One model, and the tags that mean it."""

    name: str
    digest: _Digest
    tags: tuple[str, ...]

    @property
    def folder(self) -> str:
        return f"models/{self.name}/{self.digest.removeprefix('sha256:')}"


class Signer(_Closed, frozen=True):
    """Whose key signs. `key` is the SHA-256 of `pem`, the public key."""

    key: _Digest
    pem: Annotated[str, Meta(max_length=4096)]


class Manifest(_Closed, frozen=True):
    """`created` is RFC 3339, UTC; `origin` the node that made it; `allod` its version."""

    version: Literal[1]
    created: Annotated[str, Meta(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$")]
    origin: Annotated[str, Meta(max_length=200)]
    allod: Annotated[str, Meta(max_length=64)]
    signer: Signer
    models: tuple[Model, ...]
    files: Annotated[tuple[File, ...], Meta(max_length=BUNDLE_FILES_MAX)]

    def of(self, *kinds: Kind) -> tuple[File, ...]:
        return tuple(f for f in self.files if f.kind in kinds)

    @property
    def content_bytes(self) -> int:
        return sum(f.size for f in self.files)


def encode(manifest: Manifest) -> bytes:
    """The one spelling of a manifest."""
    return canonical.dumps(msgspec.to_builtins(manifest))


def parse(raw: bytes) -> Manifest:
    """Raises Unprocessable `bundle.bad-manifest` and, for a path, `bundle.bad-path`."""
    try:
        found = msgspec.json.decode(raw, type=Manifest)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as e:
        raise bad(f"manifest.json is not understood: {e}") from e
    check(found)
    if encode(found) != raw:
        raise bad("manifest.json is not in its canonical form (RFC 8785)")
    return found


def check(manifest: Manifest) -> None:
    """Raises as `parse` does."""
    before = ""
    for file in manifest.files:
        if not _PATHS[file.kind].fullmatch(file.path):
            raise Unprocessable(
                "bundle.bad-path",
                f"{file.path!r} is no place for a {file.kind} of a bundle",
                hint="do not apply it: whoever signed it made it by other means than allod bundle create",
                path=file.path,
            )
        if file.path <= before:
            raise bad(f"{file.path!r} is listed twice or out of order")
        if file.kind == "blob" and file.path.rpartition("/")[2] != file.sha256.removeprefix("sha256:"):
            raise bad(f"{file.path} is said to have other content than its name")
        before = file.path
    folders = {f.path.rpartition("/")[0] for f in manifest.of("model")}
    said = [m.folder for m in manifest.models]
    if len(set(said)) != len(said) or set(said) != folders:
        raise bad("the models it names are not those that it holds")


def bad(why: str) -> Unprocessable:
    return Unprocessable(
        "bundle.bad-manifest", f"this bundle was not made well: {why}", hint="ask its maker for another one"
    )
