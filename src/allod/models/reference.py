"""How a model is named: `name`, `name:tag` or `name@sha256:<64 hex>`.

Guarantees: what parses is safe as a path component, and a reference prints as it parses. A tag may move to
other files; a digest never does.
"""

from __future__ import annotations

import re

import msgspec

from allod.errors import Unprocessable
from allod.limits import MODEL_TAG_CHARS_MAX, NAME_CHARS_MAX

LATEST = "latest"
NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")  # OCI distribution specification


class Reference(msgspec.Struct, frozen=True):
    """A model by name and either tag or digest; the other is empty."""

    name: str
    tag: str = ""
    digest: str = ""

    def __str__(self) -> str:
        return f"{self.name}@{self.digest}" if self.digest else f"{self.name}:{self.tag}"


def parse(text: str) -> Reference:
    """The reference that `text` writes; without tag and digest the tag is "latest".

    Raises Unprocessable `model.bad-name`, `model.bad-tag`, `model.bad-digest`.
    """
    head, at, digest = text.partition("@")
    name, colon, tag = head.partition(":")
    check_name(name)
    if at and not DIGEST.fullmatch(digest):
        raise Unprocessable(
            "model.bad-digest", f"{text!r}: a digest is written sha256: and 64 hexadecimal digits"
        )
    if at and colon:
        raise Unprocessable("model.bad-tag", f"{text!r} has a tag and a digest; one of them names the files")
    if colon:
        check_tag(tag)
    return Reference(name, digest=digest) if at else Reference(name, tag=tag or LATEST)


def check_name(name: str) -> None:
    """Raises Unprocessable `model.bad-name` unless a model may be called this."""
    if len(name) > NAME_CHARS_MAX or not NAME.fullmatch(name):
        raise Unprocessable(
            "model.bad-name",
            f"{name!r} is no model name",
            hint=f"lower-case letters, digits, '.', '_' and '-', at most {NAME_CHARS_MAX}",
        )


def check_tag(tag: str) -> None:
    """Raises Unprocessable `model.bad-tag` unless this may be a tag."""
    if len(tag) > MODEL_TAG_CHARS_MAX or not _TAG.fullmatch(tag):
        raise Unprocessable(
            "model.bad-tag",
            f"{tag!r} is no tag",
            hint=f"letters, digits, '.', '_' and '-', at most {MODEL_TAG_CHARS_MAX}",
        )
