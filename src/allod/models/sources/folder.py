"""A folder, or one file, of this machine as a source. Hidden entries are not part of a model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from allod.errors import Unprocessable
from allod.models.sources import Listing, RemoteFile, as_name


class Folder:
    def __init__(self, path: Path) -> None:
        self._path = path.absolute()

    def listing(self) -> Listing:
        """Raises Unprocessable `model.bad-file-name` on a folder in the folder or a link that leads out."""
        path = self._path
        if path.is_file():
            return Listing(
                origin=f"file {path.name}",
                name=as_name(path.stem),
                files=(_file(path),),
                picked=True,
            )
        files = []
        for entry in sorted(path.iterdir()):
            if entry.name.startswith("."):
                continue
            if not entry.is_file():
                raise Unprocessable(
                    "model.bad-file-name", f"{entry.name} is no file; a model is a folder of plain files"
                )
            files.append(_file(entry))
        return Listing(origin=f"folder {path.name}", name=as_name(path.name), files=tuple(files), picked=True)

    def read(self, file: RemoteFile, start: int, end: int) -> Iterator[bytes]:
        raise AssertionError("files of this machine are copied, not fetched")


def _file(path: Path) -> RemoteFile:
    return RemoteFile(name=path.name, size=path.stat().st_size, path=path.resolve())
