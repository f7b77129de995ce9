"""The models of a node, under `<home>/models`: read, verified, published and removed here.

    blobs/sha256/<hex>          every content once
    named/<name>/<hex>/         one model by its digest: model.json, its files under their real names (hard
                                links to blobs), and what signs them. Never changed once it is there.
    named/<name>/tags/<tag>     the digest that a tag means now
    partial/                    what was begun and is not whole

Guarantees: `load` returns only manifests whose rules hold; `verify` only passes a folder whose every byte is
the one that was registered, and nothing else lies in it; a model is visible whole and sealed or not at all;
a tag moves at once, and a folder that something runs from never changes under it.
"""

from __future__ import annotations

import contextlib
import ctypes
import difflib
import fcntl
import itertools
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import msgspec

from allod import digest
from allod.errors import AllodError, Integrity, NotFound, NotReady, Unprocessable, Usage
from allod.ledger import files as durable
from allod.models import reference
from allod.models.blobs import Blobs
from allod.models.manifest import (
    LINEAGE_NAME,
    MANIFEST_NAME,
    PUBLISHER_SIGNATURE_NAME,
    SIGNATURE_NAME,
    ModelManifest,
    check,
)
from allod.models.reference import LATEST, Reference

_PAPERS = (PUBLISHER_SIGNATURE_NAME, LINEAGE_NAME)  # what is said of a model, whatever its manifest says
BESIDE = (MANIFEST_NAME, SIGNATURE_NAME, *_PAPERS)  # may lie in a model's folder without being part of it
_VERSION = re.compile(r"[0-9a-f]{64}")
Seal = Callable[[Path], None]  # signs a whole folder before it is visible; raises if it may not be


class Installed(msgspec.Struct, frozen=True, kw_only=True):
    """One model that is here, and the tags that mean it."""

    folder: Path
    manifest: ModelManifest
    tags: tuple[str, ...]

    @property
    def file_bytes(self) -> int:
        found = (self.folder / name for name in self.manifest.files)
        return sum(path.stat().st_size for path in found if path.exists())


def load(folder: Path) -> ModelManifest:
    """The manifest in a model's folder. Raises NotFound, Unprocessable on a bad manifest."""
    try:
        raw = (folder / MANIFEST_NAME).read_bytes()
    except FileNotFoundError as e:
        raise NotFound(
            "model.not-found", f"there is no model in {folder.name}", hint="allod models ls"
        ) from e
    try:
        manifest = msgspec.json.decode(raw, type=ModelManifest)
    except msgspec.DecodeError as e:
        raise Unprocessable("model.bad-manifest", f"{folder.name}/{MANIFEST_NAME}: {e}") from e
    return check(manifest)


def verify(folder: Path) -> ModelManifest:
    """Reads every file again. Raises Integrity `model.changed`, `model.missing` or `model.unlisted`, naming
    the file.
    """
    manifest = load(folder)
    for path in sorted(folder.iterdir()):
        if path.name not in manifest.files and path.name not in BESIDE:
            raise Integrity(
                "model.unlisted", f"{manifest.name}: {path.name} is not in the manifest", file=path.name
            )
    for name, expected in sorted(manifest.files.items()):
        try:
            found = digest.of_file(folder / name)
        except FileNotFoundError as e:
            raise Integrity("model.missing", f"{manifest.name}: {name} is gone", file=name) from e
        if found != expected:
            raise Integrity(
                "model.changed",
                f"{manifest.name}: {name} is not the file that was registered",
                hint="add the model again from a source you trust",
                file=name,
                expected=expected,
                found=found,
            )
    return manifest


# --- looking ------------------------------------------------------------------------------------------------


def installed(models: Path) -> list[Installed]:
    """Every model that is here, by name, also those that no tag means any more. Raises as `load` does."""
    return [one for named in sorted((models / "named").glob("*/")) for one in _versions(named)]


def _versions(named: Path) -> Iterator[Installed]:
    tags = _tags(named)
    for folder in sorted(named.iterdir()):
        if _VERSION.fullmatch(folder.name) and (folder / MANIFEST_NAME).is_file():
            meant = tuple(tag for tag, address in tags.items() if address == f"sha256:{folder.name}")
            yield Installed(folder=folder, manifest=load(folder), tags=meant)


def ls(models: Path) -> list[ModelManifest]:
    """The manifests of all models that a tag means, by name. Raises as `load` does on a bad one."""
    return [one.manifest for one in installed(models) if one.tags]


def find(models: Path, name: str) -> tuple[Path, ModelManifest]:
    """The folder and manifest of a model, by reference or alias. Raises NotFound, with the nearest name."""
    one = look_up(models, name)
    return one.folder, one.manifest


def look_up(models: Path, name: str) -> Installed:
    """As `find`, with the tags. A model that cannot be read hides no other; asked for by its own name it
    raises as `load` does."""
    wanted = _reference(name)
    if wanted is not None:
        own = models / "named" / wanted.name
        first: Iterable[Installed] = _versions(own) if own.is_dir() else ()
        for one in itertools.chain(first, _readable(models)):
            if _means(wanted, one):
                return one
    names: list[str] = []
    for one in _readable(models):
        names += [one.manifest.name, *one.manifest.aliases]
        names += [f"{one.manifest.name}:{tag}" for tag in one.tags if tag != LATEST]
    near = difflib.get_close_matches(name, names, 1)
    raise NotFound(
        "model.not-found",
        f"there is no model {name!r}" + (f"; did you mean {near[0]!r}?" if near else ""),
        hint="allod models ls",
    )


def _reference(name: str) -> Reference | None:
    """What is no reference is no model either."""
    try:
        return reference.parse(name)
    except Unprocessable:
        return None


def _readable(models: Path) -> Iterator[Installed]:
    for named in sorted((models / "named").glob("*/")):
        with contextlib.suppress(AllodError):
            yield from _versions(named)


def _means(wanted: Reference, one: Installed) -> bool:
    if wanted.name != one.manifest.name and wanted.name not in one.manifest.aliases:
        return False
    return one.manifest.digest == wanted.digest if wanted.digest else wanted.tag in one.tags


def _tags(named: Path) -> dict[str, str]:
    folder = named / "tags"
    if not folder.is_dir():
        return {}
    return {p.name: p.read_text().strip() for p in sorted(folder.iterdir()) if p.name[0] != "."}


def _set_tag(named: Path, tag: str, address: str) -> None:
    durable.write_all(named, [("tags/.new", f"{address}\n".encode())])
    (named / "tags" / ".new").replace(named / "tags" / tag)
    durable.sync_folder(named / "tags")


# --- publishing ---------------------------------------------------------------------------------------------


@contextlib.contextmanager
def in_use(models: Path) -> Iterator[None]:
    """While this holds, nothing is pruned: blobs that no manifest names yet stay."""
    with _locked(models / "blobs", fcntl.LOCK_SH):
        yield


@contextlib.contextmanager
def alone(models: Path) -> Iterator[None]:
    """While this holds, nobody adds a model. Raises NotReady `model.busy` where somebody does."""
    try:
        with _locked(models / "blobs", fcntl.LOCK_EX | fcntl.LOCK_NB):
            yield
    except BlockingIOError as e:
        raise NotReady(
            "model.busy", "models are being added at this moment", hint="try again when that is done"
        ) from e


@contextlib.contextmanager
def _locked(folder: Path, how: int) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, how)
        yield
    finally:
        os.close(fd)


def place(
    models: Path,
    manifest: ModelManifest,
    files: Mapping[str, Path],
    *,
    tag: str = LATEST,
    replace: bool = False,
    seal: Seal | None = None,
) -> Path:
    """Makes a model from files lying elsewhere, which are copied, and returns its folder; see `publish`."""
    check(manifest)
    blobs = Blobs(models)
    with in_use(models):
        for name, source in files.items():
            if blobs.take(source) != manifest.files[name]:
                raise Integrity(
                    "model.changed",
                    f"{source} is not the file that the manifest names",
                    hint="let nothing write to it and try again",
                    file=name,
                )
        return publish(models, manifest, tag=tag, replace=replace, seal=seal)


def publish(
    models: Path,
    manifest: ModelManifest,
    *,
    tag: str = LATEST,
    replace: bool = False,
    seal: Seal | None = None,
    beside: Mapping[str, bytes] | None = None,
) -> Path:
    """Makes a model of blobs that are in the store visible as `name:tag`, and returns its folder.

    `seal` gets the whole folder before anyone can see it. `beside` are files that come along without being
    part of the model, by name. The same model again is no error: what its manifest says of it (licence,
    aliases, card) is then replaced. Raises Usage `model.exists` if the tag means another model, unless
    `replace`; Unprocessable as `check` does; Integrity `model.missing` where a blob is not there.
    """
    check(manifest)
    reference.check_tag(tag)
    named = models / "named" / manifest.name
    target = named / manifest.digest.removeprefix("sha256:")
    with _locked(named, fcntl.LOCK_EX):
        _tidy(named)
        meant = _tags(named).get(tag, manifest.digest)
        if meant != manifest.digest and not replace:
            raise Usage(
                "model.exists",
                f"another model is called {manifest.name}:{tag}",
                hint="choose another name or tag, or say --replace: the tag then means the new model",
            )
        unsealed = seal is not None and not (target / SIGNATURE_NAME).is_file()
        if not (target / MANIFEST_NAME).is_file() or load(target) != manifest or unsealed:
            kept = {n: (target / n).read_bytes() for n in _PAPERS if (target / n).is_file()}
            _build(models, manifest, target, seal, kept | dict(beside or {}))
        _set_tag(named, tag, manifest.digest)
    return target


def tidy(models: Path) -> None:
    """Removes what killed processes left half built."""
    for named in (models / "named").glob("*/"):
        with _locked(named, fcntl.LOCK_EX):
            _tidy(named)


def _tidy(named: Path) -> None:
    """Whoever builds in this folder holds its lock, so what is hidden here has no owner."""
    for half in named.glob(".*"):
        shutil.rmtree(half)
    (named / "tags" / ".new").unlink(missing_ok=True)


def _build(
    models: Path, manifest: ModelManifest, target: Path, seal: Seal | None, beside: Mapping[str, bytes]
) -> None:
    """Fills a hidden folder and moves it in place, so that a reader or a crash sees all of it or none."""
    half = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    half.mkdir()
    try:
        blobs = Blobs(models)
        for name, address in manifest.files.items():
            _link_or_copy(blobs.path(address), half / name)
        durable.write_all(half, [(MANIFEST_NAME, encoded(manifest)), *beside.items()])
        if seal is not None:
            seal(half)
        durable.sync_folder(half)
        if target.exists():
            exchange(half, target)
        else:
            half.rename(target)
        durable.sync_folder(target.parent)
    except FileNotFoundError as e:
        raise Integrity(
            "model.missing",
            f"{manifest.name}: {Path(str(e.filename)).name} is not in the store",
            hint="fetch the model again",
        ) from e
    finally:
        shutil.rmtree(half, ignore_errors=True)


def exchange(one: Path, other: Path) -> None:
    """Swaps two folders of one file system in one step (renameat2 of Linux). Raises OSError."""
    at, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    if ctypes.CDLL(None, use_errno=True).renameat2(at, bytes(one), at, bytes(other), exchange):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(other))


def encoded(manifest: ModelManifest) -> bytes:
    """A manifest as it is written."""
    return msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n"


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise
    except OSError:  # a file system without links, or too many of them
        shutil.copyfile(source, target)


def untag(models: Path, one: Installed, tag: str) -> None:
    """Takes a tag away. The model itself stays until it is removed or pruned."""
    (models / "named" / one.manifest.name / "tags" / tag).unlink(missing_ok=True)


def remove(models: Path, one: Installed) -> None:
    """Removes a model with all its tags. Its blobs stay until `prune`, where no other model has them."""
    named = models / "named" / one.manifest.name
    with _locked(named, fcntl.LOCK_EX):
        for tag, address in _tags(named).items():
            if address == one.manifest.digest:
                (named / "tags" / tag).unlink()
        shutil.rmtree(one.folder)
        with contextlib.suppress(OSError):  # other versions, other tags
            (named / "tags").rmdir()
            named.rmdir()
