"""From a source to a model that is here: choose, fetch, check, sign, show.

Guarantees, in this order: what cannot be admitted by name or licence is refused before its weights are
fetched; every byte is checked against what the source promised; every file is examined; what a publisher
signed is compared with their signature; and the model is signed and visible whole, or not at all.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import msgspec

from allod.errors import Integrity, TooLarge, Unprocessable, Usage
from allod.limits import MODEL_FILES_MAX, MODEL_JSON_BYTES_MAX
from allod.models import licence, lineage, reference, store, transfer
from allod.models.admission import Examination, Findings
from allod.models.blobs import Blobs
from allod.models.manifest import (
    ALLOWED_SUFFIXES,
    LINEAGE_NAME,
    MANIFEST_NAME,
    PICKLES,
    PUBLISHER_SIGNATURE_NAME,
    SIGNATURE_NAME,
    ModelKind,
    ModelManifest,
    Origin,
    check_file_name,
    files_digest,
)
from allod.models.reference import LATEST
from allod.models.sources import Listing, RemoteFile, Source

_SPEAKS_ABOUT = (MANIFEST_NAME, SIGNATURE_NAME, PUBLISHER_SIGNATURE_NAME, LINEAGE_NAME)
_PART = re.compile(r"-\d{5}-of-\d{5}(?=\.)")


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What a person asks for; "" and None: what the source and the files say."""

    name: str = ""
    tag: str = LATEST
    files: tuple[str, ...] = ()  # shell patterns of weight files, where a repository has several
    kind: ModelKind | None = None
    licence: str = "unknown"
    maker: str = "unknown"
    country: str = "unknown"
    aliases: tuple[str, ...] = ()
    replace: bool = False


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """What the organisation demands. `publisher` judges a signature that came along: it gets its bytes and
    the model's name, and gives the digests it vouches for by file name, or raises."""

    allowed_licences: tuple[str, ...] = ()
    publisher: Callable[[bytes, str], dict[str, str]] | None = None
    seal: store.Seal | None = None


class Pulled(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it. `moved` counts bytes that were fetched or copied, `here` those that were there."""

    folder: Path
    manifest: ModelManifest
    tag: str
    origin: str
    moved: int
    here: int
    left_out: dict[str, str]  # file of the source -> why it was not taken


class Progress(Protocol):
    """Who is told how far it is. Called from several threads."""

    def total(self, count: int) -> None:
        """All bytes that belong to the model."""

    def have(self, count: int) -> None:
        """Bytes that need not be moved."""

    def moved(self, count: int) -> None:
        """Bytes that were moved just now."""


class Silence:
    """Nobody."""

    def total(self, count: int) -> None: ...

    def have(self, count: int) -> None: ...

    def moved(self, count: int) -> None: ...


def pull(
    models: Path, source: Source, wanted: Wanted, rules: Rules, progress: Progress | None = None
) -> Pulled:
    """Makes the source's model part of this node. Raises as `choose`, the source, `transfer.fetch`,
    `Examination`, `licence` and `store.publish` do."""
    listing = source.listing()
    chosen, left_out = choose(listing, wanted.files)
    for file in chosen:
        check_file_name(file.name)
    name = wanted.name or listing.name
    wanted = msgspec.structs.replace(wanted, name=name)
    reference.check_name(name)
    reference.check_tag(wanted.tag)
    with store.in_use(models):
        work = _Work(models, source, listing, progress or Silence())
        work.begin(chosen)
        exam = Examination()
        # What is small comes first: it says most of what can be refused.
        small = [f for f in chosen if not f.name.endswith(ALLOWED_SUFFIXES)]
        for file in sorted(small, key=lambda f: f.name):
            exam.add(file.name, work.fetch(file))
        if exam.licences:
            agreed = licence.agreed(exam.licences, wanted.licence)
            licence.check_allowed(name, agreed, rules.allowed_licences)
        for file in sorted((f for f in chosen if f not in small), key=lambda f: f.name):
            exam.add(file.name, work.fetch(file))
        findings = exam.findings()
        said = work.description()
        manifest = _manifest(wanted, listing, findings, said, work.digests)
        licence.check_allowed(name, manifest.licence, rules.allowed_licences)
        beside = work.lineage() | work.publisher(manifest, rules)
        folder = store.publish(
            models, manifest, tag=wanted.tag, replace=wanted.replace, seal=rules.seal, beside=beside
        )
    return Pulled(
        folder=folder, manifest=manifest, tag=wanted.tag, origin=listing.origin,
        moved=work.moved, here=work.here, left_out=left_out,
    )  # fmt: skip


class _Work:
    """The files of one pull."""

    def __init__(self, models: Path, source: Source, listing: Listing, progress: Progress) -> None:
        self._blobs = Blobs(models)
        self._source = source
        self._listing = listing
        self._progress = progress
        self._about = {f.name: f for f in listing.files if f.name in _SPEAKS_ABOUT}
        self._meter = transfer.Meter()
        self._said: dict[str, str] = {}  # digests of what speaks about the model, and is believed
        self.digests: dict[str, str] = {}
        self.here = 0

    @property
    def moved(self) -> int:
        return self._meter.moved

    def begin(self, chosen: list[RemoteFile]) -> None:
        """Says how much it is, and refuses at once what does not fit on the disk."""
        self._progress.total(sum(f.size for f in chosen))
        known = {address for address, _ in self._blobs.all()}
        self._blobs.need_room(sum(f.size for f in chosen if f.promise not in known))

    def fetch(self, file: RemoteFile) -> Path:
        before = self._meter.moved
        self.digests[file.name] = address = transfer.fetch(
            self._blobs, self._source, file, self._listing.origin, self._count
        )
        had = max(0, file.size - (self._meter.moved - before))
        self.here += had
        self._progress.have(had)
        return self._blobs.path(address)

    def _count(self, count: int) -> None:
        self._meter(count)
        self._progress.moved(count)

    def description(self) -> ModelManifest | None:
        """What an earlier node wrote about the model, where it came along."""
        raw = self._small(MANIFEST_NAME)
        if raw is None:
            return None
        try:
            return msgspec.json.decode(raw, type=ModelManifest)
        except msgspec.MsgspecError as e:
            raise Unprocessable("model.bad-manifest", f"the source's {MANIFEST_NAME}: {e}") from e

    def publisher(self, manifest: ModelManifest, rules: Rules) -> dict[str, bytes]:
        """The signature that came along, if it vouches for every file. Raises Integrity `model.changed`,
        `model.extra-file`."""
        raw = self._small(SIGNATURE_NAME)
        if raw is None or rules.publisher is None:
            return {}
        signed = rules.publisher(raw, manifest.name)
        for name, address in (manifest.files | self._said).items():
            if signed.get(name) != address:
                code = "model.changed" if name in signed else "model.extra-file"
                what = "is not the file that" if name in signed else "is not among what"
                raise Integrity(code, f"{name} {what} its publisher signed", file=name)
        return {PUBLISHER_SIGNATURE_NAME: raw}

    def lineage(self) -> dict[str, bytes]:
        """How the model was made, where it came along. Unprocessable `lineage.malformed`."""
        raw = self._small(LINEAGE_NAME)
        if raw is None:
            return {}
        lineage.parse(raw)
        return {LINEAGE_NAME: raw}

    def _small(self, name: str) -> bytes | None:
        file = self._about.get(name)
        if file is None:
            return None
        if file.size > MODEL_JSON_BYTES_MAX:
            raise TooLarge("model.file-too-large", f"{name} is larger than {MODEL_JSON_BYTES_MAX} bytes")
        address = transfer.fetch(self._blobs, self._source, file, self._listing.origin, lambda _count: None)
        if name != SIGNATURE_NAME:
            self._said[name] = address
        return self._blobs.path(address).read_bytes()


def _manifest(
    wanted: Wanted,
    listing: Listing,
    findings: Findings,
    said: ModelManifest | None,
    files: dict[str, str],
) -> ModelManifest:
    """The person's word, then what came along, then what the files say; the licence has to agree."""
    origin = said.origin if said else Origin()
    licences = [*findings.licences, *([said.licence] if said else [])]
    return ModelManifest(
        name=wanted.name,
        kind=wanted.kind or (said.kind if said else findings.kind),
        files=files,
        digest=files_digest(files),
        format=findings.format,
        quantisation=findings.quantisation
        if findings.quantisation != "unknown" or said is None
        else said.quantisation,
        context_tokens=findings.context_tokens or (said.context_tokens if said else None),
        licence=licence.agreed(licences, wanted.licence),
        origin=Origin(
            maker=wanted.maker if wanted.maker != "unknown" else origin.maker,
            country=wanted.country if wanted.country != "unknown" else origin.country,
            source=listing.origin,
        ),
        test_model=said.test_model if said else False,
        card=said.card if said else "",
        aliases=wanted.aliases or (said.aliases if said else ()),
    )


# --- choosing -----------------------------------------------------------------------------------------------


def choose(listing: Listing, patterns: tuple[str, ...] = ()) -> tuple[list[RemoteFile], dict[str, str]]:
    """Which files to take, and why not the others. A folder or an artefact is taken whole; of a repository,
    one set of weights and what belongs to it.

    Raises Unprocessable `model.pickle`, `model.no-weights`, `model.too-many-files`; Usage
    `source.which-file`.
    """
    names = [f.name for f in listing.files]
    if len(names) > MODEL_FILES_MAX or len(set(names)) != len(names):
        raise Unprocessable(
            "model.too-many-files", f"{listing.origin} has too many files, or a name twice", count=len(names)
        )
    left_out: dict[str, str] = {}
    fit = []
    for file in listing.files:
        if file.name in _SPEAKS_ABOUT:
            continue
        if listing.picked:
            fit.append(file)
            continue
        why = _not_wanted(file.name)
        if why:
            left_out[file.name] = why
        else:
            fit.append(file)
    weights = [f.name for f in fit if f.name.endswith(ALLOWED_SUFFIXES)]
    if not weights:
        raise _no_weights(listing)
    taken = _matching(weights, patterns) if patterns else _one_set(weights, listing)
    left_out |= {name: "another set of the same weights" for name in weights if name not in taken}
    return [f for f in fit if f.name not in left_out], left_out


def _not_wanted(name: str) -> str:
    if name.startswith(".") or "/" in name:
        return "not in the repository's own folder"
    try:
        check_file_name(name)
    except Unprocessable as e:
        return e.message
    return ""


def _no_weights(listing: Listing) -> Unprocessable:
    pickles = [f.name for f in listing.files if f.name.lower().endswith(PICKLES)]
    if pickles:
        return Unprocessable(
            "model.pickle",
            f"its weights come only as {pickles[0]}, which can run code when it is opened",
            hint="look for the same model as safetensors, GGUF or ONNX",
        )
    return Unprocessable(
        "model.no-weights", f"{listing.origin} has no weights as {', '.join(ALLOWED_SUFFIXES)}"
    )


def _matching(weights: list[str], patterns: tuple[str, ...]) -> list[str]:
    taken = [name for name in weights if any(fnmatch.fnmatchcase(name, p) for p in patterns)]
    if not taken:
        raise _which(weights)
    return taken


def _one_set(weights: list[str], listing: Listing) -> list[str]:
    """All safetensors, else the one GGUF model, else what there is as ONNX."""
    if listing.picked:
        return weights
    safetensors = [name for name in weights if name.endswith(".safetensors")]
    if safetensors:
        # Some makers add the same weights under the names of their own code.
        plain = [name for name in safetensors if not name.startswith("consolidated")]
        return plain or safetensors
    gguf = [name for name in weights if name.endswith(".gguf")]
    if len({_PART.sub("", name) for name in gguf}) > 1:
        raise _which(gguf)
    return gguf or weights


def _which(weights: list[str]) -> Usage:
    return Usage(
        "source.which-file",
        f"there are several sets of weights: {', '.join(weights[:20])}",
        hint=f"choose one: --file '{weights[0]}'",
        files=weights,
    )
