"""Durable file writes: what these functions return from is on the disk."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from allod.errors import NotReady

_SYNC_THREADS = 16  # they only wait
_NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def write_all(root: Path, contents: Iterable[tuple[str, bytes]]) -> None:
    """Writes new files (relative path, content), then syncs them and every folder that gained an entry.

    All are written before the first sync, so that the disk can order them. Raises OSError.
    """
    fds: list[int] = []
    folders: set[Path] = set()
    try:
        for name, data in contents:
            path = root / name
            make_folder(path.parent, root, folders)
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
            fds.append(fd)
            write_fully(fd, data)
            folders.add(path.parent)
        sync_together(fds)
    finally:
        for fd in fds:
            os.close(fd)
    for folder in folders:
        sync_folder(folder)


def sync_together(fds: Sequence[int]) -> None:
    """fdatasync of many files at once: the file system then answers with few journal commits."""
    if len(fds) <= 2:
        for fd in fds:
            os.fdatasync(fd)
        return
    with ThreadPoolExecutor(min(_SYNC_THREADS, len(fds))) as pool:
        for _ in pool.map(os.fdatasync, fds):
            pass


def replace(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Replaces a file's content atomically: a reader or a crash sees the old or the new. Raises OSError."""
    new = path.with_name(path.name + ".new")
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    try:
        write_fully(fd, data)
        os.fsync(fd)
    finally:
        os.close(fd)
    new.replace(path)
    sync_folder(path.parent)


def make_folder(folder: Path, root: Path, changed: set[Path]) -> None:
    """Creates `folder` below `root`, noting in `changed` the parents that have to be synced."""
    if folder == root or folder.is_dir():
        return
    make_folder(folder.parent, root, changed)
    folder.mkdir(exist_ok=True)
    changed.add(folder.parent)


def write_fully(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def not_ready(e: OSError) -> NotReady:
    """`ledger.no-space` where room is what was missing, else `ledger.io`."""
    if e.errno in _NO_SPACE:
        return NotReady(
            "ledger.no-space",
            "there is no room on the disk for further receipts",
            hint="free space on the volume that holds the node's spool and ledger",
            retry_after_s=5,
        )
    return NotReady(
        "ledger.io",
        f"the disk does not take receipts: {os.strerror(e.errno or errno.EIO)}",
        hint="check the volume that holds the node's spool and ledger",
        retry_after_s=5,
    )
