"""Puts a bundle into a home.

Guarantees: nothing is written before manifest and signature hold, and nothing that anybody uses changes
before everything was read to the end and judged. Each thing is then put in place in one step: a model, a
folder of rules or sites (the old one stays as `.previous`), the configuration. A process that is killed
leaves every one of them old or new; applying again finishes what is left, and applying what is in place
changes nothing.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import msgspec

from allod import digest
from allod.errors import NotReady, Usage
from allod.ledger import files as durable
from allod.models import instructions, store
from allod.models.blobs import Blobs
from allod.models.bundle.container import Moved, Reader
from allod.models.bundle.judge import Checks, Judged, judge
from allod.models.bundle.manifest import File, Manifest, Model
from allod.models.bundle.places import Places
from allod.models.bundle.receive import receive
from allod.models.bundle.signature import Opened
from allod.models.manifest import SIGNATURE_NAME, ModelManifest

_FOLDERS = ("policy", "sites", "wheels")  # replaced whole, the old one kept


class Applied(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it. `changed` is empty where all of it was in place."""

    manifest: Manifest
    digest: str  # of the manifest
    signer: str
    changed: tuple[str, ...]


def apply(
    opened: Opened,
    reader: Reader,
    places: Places,
    checks: Checks,
    *,
    moved: Moved = lambda _count: None,
) -> Applied:
    """Applies what `signature.open_` opened to a home that `allod init` has made.

    Raises as `receive` and `judge` do; NotReady `bundle.busy`, `bundle.cannot-apply`; Usage
    `instructions.approved`.
    """
    try:
        with _alone(places.root):
            staged = _staging(places, opened.digest)
            with store.in_use(places.models):
                receive(reader, opened.manifest, places.models, staged, moved)
                judged = judge(opened, places, staged, checks)
                _check_instructions(opened.manifest, places, staged)
                changed = tuple(_install(opened.manifest, judged, places, staged))
            shutil.rmtree(places.staging)
    except OSError as e:
        raise NotReady(
            "bundle.cannot-apply",
            f"{e.filename or places.root} cannot be written: {e.strerror}",
            hint="what is there is gone on with: apply it again when the disk takes it",
        ) from e
    return Applied(
        manifest=opened.manifest, digest=opened.digest, signer=opened.signer.ids[0], changed=changed
    )


@contextlib.contextmanager
def _alone(root: Path) -> Iterator[None]:
    """The one application that is under way in this home."""
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as e:
            raise NotReady("bundle.busy", "another bundle is being applied to this home") from e
        yield
    finally:
        os.close(fd)


def _staging(places: Places, address: str) -> Path:
    """Where this bundle's things are prepared. What another bundle left is removed."""
    places.staging.mkdir(mode=0o700, exist_ok=True)
    staged = places.staging / address.removeprefix("sha256:")
    for other in places.staging.iterdir():
        if other != staged:
            shutil.rmtree(other)
    staged.mkdir(exist_ok=True)
    return staged


def _install(manifest: Manifest, judged: Judged, places: Places, staged: Path) -> Iterator[str]:
    """Puts everything in place; names what was not there before. Trust comes first: what follows from it is
    never in place without it. Services come last: what they need is then there."""
    if _merge(judged.trust, places.trust):
        yield "trust"
    for model, said, beside in judged.models:
        if _publish(places.models, model, said, beside):
            yield f"model {model.name}@{model.digest}"
    for file in manifest.of("instruction"):
        if _instruct(file, places, staged):
            yield file.path
    for name in _FOLDERS:
        listed = [f for f in manifest.files if f.path.startswith(f"{name}/")]
        if listed and not _is(places.root / name, listed):
            _switch(staged / name, places.root / name)
            yield name
    if judged.config is not None and judged.config.encode() != places.config_file.read_bytes():
        durable.replace(places.config_file, judged.config.encode(), mode=0o600)
        yield "services"


def _merge(new: Path, target: Path) -> bool:
    """Brings the files of a folder up to those of another one; whether any was different. PEM files come
    first: an entry never names one that is not there."""
    changed = False
    target.mkdir(mode=0o700, exist_ok=True)
    for path in sorted(new.iterdir(), key=lambda p: (p.suffix != ".pem", p.name)):
        data = path.read_bytes()
        if not (target / path.name).is_file() or (target / path.name).read_bytes() != data:
            durable.replace(target / path.name, data)
            changed = True
    return changed


def _publish(models: Path, model: Model, said: ModelManifest, beside: dict[str, bytes]) -> bool:
    named = models / "named" / model.name
    folder = named / model.digest.removeprefix("sha256:")
    meant = {t: p.read_text().strip() for t in model.tags if (p := named / "tags" / t).is_file()}
    same = all((folder / n).is_file() and (folder / n).read_bytes() == data for n, data in beside.items())
    healed = same and _heal(folder, said, Blobs(models))
    if same and meant == dict.fromkeys(model.tags, model.digest):
        return healed
    signed = beside[SIGNATURE_NAME]
    for tag in model.tags:
        # The manifest is among what lies beside: its signature is about the bytes in which it was written.
        store.publish(models, said, tag=tag, replace=True, beside=beside)
    if (folder / SIGNATURE_NAME).read_bytes() != signed:  # the same model, signed anew
        durable.replace(folder / SIGNATURE_NAME, signed)
    return True


def _heal(folder: Path, said: ModelManifest, blobs: Blobs) -> bool:
    """Puts right what has rotted on the disk since the model came; whether anything had.

    A blob that was damaged has just been written anew, so a file that shares its inode is right.
    """
    healed = False
    for name, address in said.files.items():
        path, blob = folder / name, blobs.path(address)
        if path.exists() and (path.samefile(blob) or digest.of_file(path) == address):
            continue
        half = folder / f".{name}"
        half.unlink(missing_ok=True)
        _link_or_copy(str(blob), str(half))
        half.replace(path)
        durable.sync_folder(folder)
        healed = True
    return healed


def _is(folder: Path, listed: list[File]) -> bool:
    """Whether a folder holds exactly these files."""
    if not folder.is_dir():
        return False
    names = {f.path.rpartition("/")[2]: f for f in listed}
    if {p.name for p in folder.iterdir()} != set(names):
        return False
    return all(digest.of_file(folder / name) == file.sha256 for name, file in names.items())


def _switch(new: Path, target: Path) -> None:
    """Exchanges a folder with another one in one step. What was there before is kept as `.previous`; it is
    copied first, so that a crash at no moment loses it."""
    durable.sync_folder(new)
    new.chmod(0o700)
    if target.is_dir():
        before, half = target.with_name(f"{target.name}.previous"), new.with_name(f"{new.name}.previous")
        shutil.rmtree(half, ignore_errors=True)
        shutil.copytree(target, half, copy_function=_link_or_copy)
        if before.exists():
            store.exchange(half, before)
        else:
            half.rename(before)
        store.exchange(new, target)
    else:
        new.rename(target)
    durable.sync_folder(target.parent)


def _link_or_copy(source: str, target: str) -> None:
    """Files are replaced here, never written to, so two folders may share one."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


# --- instructions -------------------------------------------------------------------------------------------


def _check_instructions(manifest: Manifest, places: Places, staged: Path) -> None:
    """Raises Usage `instructions.approved` where a text would change that is approved here, and as
    `Instructions.read` does where a record and its text do not belong together."""
    brought = instructions.Instructions(staged / "instructions")
    known = {r.reference: r for r in instructions.Instructions(places.instructions).ls()}
    for record in brought.ls() if manifest.of("instruction") else []:
        brought.read(record.reference)
        here = known.get(record.reference)
        if here is not None and here.approvals and here.digest != record.digest:
            raise Usage(
                "instructions.approved",
                f"{record.reference} is approved here with another text, and does not change any more",
                hint="give the new text the next version, where the bundle is made",
            )


def _instruct(file: File, places: Places, staged: Path) -> bool:
    """Puts one file of a version in place. A record that has approvals here stays: they are this node's."""
    target, data = places.root / file.path, (staged / file.path).read_bytes()
    if target.is_file():
        if target.read_bytes() == data:
            return False
        if target.suffix == ".json":
            here = msgspec.json.decode(target.read_bytes(), type=instructions.Record)
            if here.approvals:
                return False
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    durable.replace(target, data)
    return True
