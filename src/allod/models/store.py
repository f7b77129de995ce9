"""The models of a node: one folder each under `<home>/models`, read, verified and added here.

Guarantees: `load` returns only manifests whose rules hold, `verify` only passes a folder whose every byte
is the one that was registered, and `add_gguf` never leaves half a model behind.
"""

from __future__ import annotations

import difflib
import os
import secrets
import shutil
from pathlib import Path

import msgspec

from allod import digest
from allod.errors import Integrity, NotFound, Unprocessable, Usage
from allod.models import gguf_header
from allod.models.manifest import (
    ALLOWED_SUFFIXES,
    MANIFEST_NAME,
    ModelKind,
    ModelManifest,
    Origin,
    check,
    check_file_name,
    files_digest,
)


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
    """Reads every file again. Raises Integrity `model.changed` or `model.missing`, naming the file; a
    weight file that the manifest does not name is `model.unlisted`.
    """
    manifest = load(folder)
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
    for path in sorted(folder.iterdir()):
        if path.name not in manifest.files and path.name.endswith(ALLOWED_SUFFIXES):
            raise Integrity(
                "model.unlisted", f"{manifest.name}: {path.name} is not in the manifest", file=path.name
            )
    return manifest


def ls(models: Path) -> list[ModelManifest]:
    """Every model under a folder, by name. Raises as `load` does on the first bad manifest."""
    if not models.is_dir():
        return []
    return [load(d) for d in sorted(models.iterdir()) if (d / MANIFEST_NAME).is_file()]


def find(models: Path, name: str) -> tuple[Path, ModelManifest]:
    """The folder and manifest of a model by name or alias. Raises NotFound, with the nearest name."""
    known = [(d, load(d)) for d in sorted(models.iterdir())] if models.is_dir() else []
    for folder, manifest in known:
        if name == manifest.name or name in manifest.aliases:
            return folder, manifest
    near = difflib.get_close_matches(name, [n for _, m in known for n in (m.name, *m.aliases)], 1)
    raise NotFound(
        "model.not-found",
        f"there is no model {name!r}" + (f"; did you mean {near[0]!r}?" if near else ""),
        hint="allod models ls",
    )


def write(folder: Path, manifest: ModelManifest) -> None:
    """Puts a checked manifest in place, whole or not at all."""
    check(manifest)
    temporary = folder / f".{MANIFEST_NAME}.{secrets.token_hex(4)}"
    temporary.write_bytes(msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n")
    temporary.replace(folder / MANIFEST_NAME)


def place(models: Path, manifest: ModelManifest, files: dict[str, Path]) -> Path:
    """Makes the model's folder from files lying elsewhere (hard links where possible) and returns it.

    Raises Usage `model.exists` if a different model has the name already; the same one again is no error.
    """
    check(manifest)
    target = models / manifest.name
    if target.exists():
        if load(target).digest == manifest.digest:
            write(target, manifest)
            return target
        raise Usage(
            "model.exists",
            f"another model is called {manifest.name}",
            hint=f"choose another --name, or: allod models rm {manifest.name}",
        )
    models.mkdir(parents=True, exist_ok=True)
    half = models / f".{manifest.name}.{secrets.token_hex(4)}"
    half.mkdir()
    try:
        for name, source in files.items():
            _link_or_copy(source, half / name)
        write(half, manifest)
        half.rename(target)
    finally:
        shutil.rmtree(half, ignore_errors=True)
    return target


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        os.link(source.resolve(), target)
    except OSError:  # another file system, or one without links
        shutil.copyfile(source, target)


def add_gguf(
    path: Path,
    name: str,
    models: Path,
    *,
    kind: ModelKind | None = None,
    licence: str = "unknown",
    origin: Origin | None = None,
    aliases: tuple[str, ...] = (),
) -> ModelManifest:
    """Registers a GGUF file of this machine as model `name` under the folder `models`.

    The file is hard-linked where possible, else copied; its header has to be whole. Raises NotFound,
    Unprocessable (`model.gguf-malformed`, `model.pickle`, `model.format`), Usage `model.exists`.
    """
    if not path.is_file():
        raise NotFound("model.file-not-found", f"there is no file {path}")
    check_file_name(path.name)
    if path.suffix != ".gguf":
        raise Unprocessable("model.format", f"{path.name} is not a GGUF file")
    header = gguf_header.read(path)
    files = {path.name: digest.of_file(path)}
    manifest = ModelManifest(
        name=name,
        kind=kind or ("embed" if header.embeds else "chat"),
        files=files,
        digest=files_digest(files),
        format="gguf",
        quantisation=header.quantisation or "unknown",
        context_tokens=header.context_tokens,
        licence=licence if licence != "unknown" else str(header.scalars.get("general.license", "unknown")),
        origin=origin or Origin(source=f"file {path.name}"),
        aliases=aliases,
    )
    place(models, manifest, {path.name: path})
    return manifest
