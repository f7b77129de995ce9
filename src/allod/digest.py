"""Content addresses: `sha256:<64 hex>`. Opens files, nothing else."""

from __future__ import annotations

import hashlib
from pathlib import Path

_CHUNK = 1 << 20


def of(data: bytes | bytearray | memoryview) -> str:
    """The address of these bytes."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def of_file(path: Path) -> str:
    """The address of a file's content, read in 1 MiB pieces. Raises OSError as `open` does."""
    h = hashlib.sha256()
    with path.open("rb") as f:
        while chunk := f.read(_CHUNK):
            h.update(chunk)
    return "sha256:" + h.hexdigest()
