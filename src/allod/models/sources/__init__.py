"""Where models come from, behind one shape: a listing with promised digests, and bytes by range.

Nothing here is contacted unless a person pulls or pushes. `hf:org/repo[@revision]`, `oci:host/repo:tag`,
`oci-layout:FOLDER[:tag]`, a folder, or one file.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import msgspec

from allod.errors import AllodError, Denied, NotFound, NotReady, Usage

SCHEMES = ("hf", "oci", "oci-layout")


class RemoteFile(msgspec.Struct, frozen=True, kw_only=True):
    """One file that a source offers.

    `promise` is what its content has to be: "sha256:<hex>", "git:<40 hex>" (a Git blob id), or "" where the
    source says nothing. `path` is set where the file lies on this machine; then nothing is fetched.
    """

    name: str
    size: int
    promise: str = ""
    path: Path | None = None


class Listing(msgspec.Struct, frozen=True, kw_only=True):
    """What a source has, pinned: `origin` names exactly this state of it."""

    origin: str
    name: str  # what it is called there, as a model name
    files: tuple[RemoteFile, ...]
    picked: bool = False  # the source's maker chose these files: nothing is left out of them


class Source(Protocol):
    """A place that models can be pulled from."""

    def listing(self) -> Listing:
        """Asks once. Raises NotFound, Denied, NotReady, each `source.…`."""
        ...

    def read(self, file: RemoteFile, start: int, end: int) -> Iterator[bytes]:
        """The bytes from `start` up to `end`, in pieces. Raises NotReady `source.broken-off` on a
        connection that fails: asking again from where it ended is then right."""
        ...


class Access(msgspec.Struct, frozen=True, kw_only=True):
    """How a remote source is spoken to. `token` is a reference (env:NAME, file:PATH), "" for none;
    `endpoint` the hub, "" for the library's own default."""

    token: str = ""
    endpoint: str = ""


def open_source(text: str, access: Access | None = None) -> Source:
    """The source that `text` names. Contacts nobody. Raises Usage `source.unknown`, NotReady
    `source.not-installed` where the client library is missing."""
    access = access or Access()
    scheme, colon, rest = text.partition(":")
    if colon and scheme in SCHEMES:
        if not rest:
            raise Usage("source.unknown", f"{text!r} names no model", hint=_how())
        # Client libraries are large, and optional: only who pulls from there needs them.
        if scheme == "hf":
            from allod.models.sources.hub import Hub

            return Hub(rest, access)
        if scheme == "oci":
            from allod.models.sources.registry import RegistrySource

            return RegistrySource(rest, access)
        from allod.models.sources.layout import Layout

        return Layout(rest)
    from allod.models.sources.folder import Folder

    path = Path(text).expanduser()
    if not path.exists():
        raise Usage("source.unknown", f"there is no file or folder {text}", hint=_how())
    return Folder(path)


def _how() -> str:
    return "hf:ORG/REPO[@REVISION], oci:HOST/REPO:TAG, oci-layout:FOLDER:TAG, a folder or a file"


def secret(reference: str) -> str:
    """What a reference leads to; "" for no reference. Usage `source.no-token`: tokens are never given as they
    are, since everybody on a machine can read its command lines."""
    if not reference:
        return ""
    kind, _, target = reference.partition(":")
    found = ""
    if kind == "env":
        found = os.environ.get(target, "")
    elif kind == "file":
        try:
            found = Path(target).expanduser().read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as e:
            raise Usage("source.no-token", f"{target} cannot be read: {e}", hint="file:PATH") from e
    else:
        raise Usage("source.no-token", "a token is given by reference", hint="env:NAME or file:PATH")
    if not found or not found.isascii() or not found.isprintable():
        raise Usage("source.no-token", f"{reference} holds no token", hint="env:NAME or file:PATH")
    return found


def as_name(text: str) -> str:
    """A model name made of what somebody else calls it."""
    kept = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in text.lower())
    return kept.strip("._-")[:64] or "model"


def cut(pieces: Iterator[bytes], skip: int, count: int) -> Iterator[bytes]:
    """`count` bytes of a stream after its first `skip`. NotReady `source.broken-off` if it ends before."""
    for piece in pieces:
        if skip >= len(piece):
            skip -= len(piece)
            continue
        kept = piece[skip : skip + count]
        skip, count = 0, count - len(kept)
        yield kept
        if not count:
            return
    if count:
        raise NotReady("source.broken-off", f"the source stopped {count} bytes early", hint="pull again")


def refused(status: int, what: str) -> AllodError:
    """An HTTP status that is no answer, as the error it stands for."""
    if status in (401, 403):
        return Denied("source.denied", f"{what} is not for you ({status})", hint="--token env:NAME")
    if status == 404:
        return NotFound("source.not-found", f"there is no {what}", hint="check the name and the revision")
    if status == 429 or status >= 500:
        return NotReady("source.broken-off", f"the source answered {status} for {what}", hint="pull again")
    return NotReady("source.answer", f"the source answered {status} for {what}", hint="pull again later")


def unreachable(where: str, cause: Exception) -> NotReady:
    """Nobody answered."""
    return NotReady("source.unreachable", f"{where} cannot be reached: {cause}", hint="check the address")
