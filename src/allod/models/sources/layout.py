"""An OCI image layout: a folder that holds artefacts as files, for carrying and for mirrors."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import msgspec

from allod import digest
from allod.errors import NotFound, Unprocessable
from allod.ledger import files as durable
from allod.models.reference import LATEST
from allod.models.sources import Listing, RemoteFile, as_name
from allod.models.sources.artefact import ARTEFACT_TYPE, MANIFEST_TYPE, Artefact, Descriptor, files_of

_REF = "org.opencontainers.image.ref.name"


class _Index(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    schema_version: int = 2
    media_type: str = "application/vnd.oci.image.index.v1+json"
    manifests: tuple[Descriptor, ...] = ()


class Layout:
    def __init__(self, text: str) -> None:
        """`text` is FOLDER or FOLDER:TAG."""
        folder, colon, tag = text.rpartition(":")
        if not colon or "/" in tag:
            folder, tag = text, LATEST
        self._folder = Path(folder).expanduser().absolute()
        self._tag = tag

    def listing(self) -> Listing:
        """Raises NotFound `source.not-found`, Unprocessable `source.bad-manifest`."""
        entry = next((m for m in self._index().manifests if m.annotations.get(_REF) == self._tag), None)
        if entry is None:
            raise NotFound("source.not-found", f"{self._folder} has nothing tagged {self._tag}")
        with contextlib.suppress(FileNotFoundError):
            found = files_of(self._blob(entry.digest).read_bytes(), entry.digest)
            here = tuple(msgspec.structs.replace(f, path=self._blob(f.promise)) for f in found)
            origin = f"oci-layout:{self._folder.name}@{entry.digest}"
            return Listing(origin=origin, name=as_name(self._folder.name), files=here, picked=True)
        raise NotFound("source.not-found", f"{self._folder} lacks the manifest {entry.digest}")

    def read(self, file: RemoteFile, start: int, end: int) -> Iterator[bytes]:
        raise AssertionError("files of this machine are copied, not fetched")

    def _index(self) -> _Index:
        try:
            return msgspec.json.decode((self._folder / "index.json").read_bytes(), type=_Index)
        except OSError as e:
            raise NotFound("source.not-found", f"{self._folder} is no OCI layout") from e
        except msgspec.MsgspecError as e:
            raise Unprocessable("source.bad-manifest", f"{self._folder}/index.json: {e}") from e

    def _blob(self, address: str) -> Path:
        return self._folder / "blobs" / "sha256" / address.removeprefix("sha256:")

    def push(self, artefact: Artefact, files: dict[str, Path]) -> str:
        """Writes an artefact under this tag, which may mean another one afterwards; gives its digest."""
        blobs = self._folder / "blobs" / "sha256"
        blobs.mkdir(parents=True, exist_ok=True)
        fd = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            for name, layer in artefact.layers.items():
                target = self._blob(layer.digest)
                if not target.exists() or digest.of_file(target) != layer.digest:
                    half = target.with_name(f".{target.name}")
                    shutil.copyfile(files[name], half)
                    half.replace(target)
            for raw in (artefact.config, artefact.manifest):
                durable.replace(self._blob(digest.of(raw)), raw)
            durable.replace(self._folder / "oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
            entry = Descriptor(
                media_type=MANIFEST_TYPE,
                digest=digest.of(artefact.manifest),
                size=len(artefact.manifest),
                annotations={_REF: self._tag},
            )
            kept: tuple[Descriptor, ...] = ()
            if (self._folder / "index.json").exists():
                kept = tuple(m for m in self._index().manifests if m.annotations.get(_REF) != self._tag)
            whole = msgspec.to_builtins(_Index(manifests=(*kept, entry)))
            for one in whole["manifests"]:
                one.setdefault("artifactType", ARTEFACT_TYPE)
            durable.replace(self._folder / "index.json", msgspec.json.encode(whole))
        finally:
            os.close(fd)
        return entry.digest
