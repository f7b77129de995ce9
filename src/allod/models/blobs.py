"""The bytes of all models, each content once, under `<models>/blobs/sha256/<hex>`.

Guarantees: a blob appears under its digest only after every byte of it was hashed and synced; it is never
written again; what is half done lies in `<models>/partial/<hex>/` and can be gone on with. Whoever makes a
blob holds an flock on that folder, which the kernel releases when its process dies, however it dies.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from allod import digest
from allod.errors import NotFound, NotReady
from allod.ledger.files import sync_folder
from allod.limits import DISK_FREE_BYTES_MIN

Moved = Callable[[int], None]  # told of bytes as they are written
_CHUNK = 1 << 20
_WINDOW = 16 << 20  # copied, then hashed while it still is in the cache
_CANNOT = frozenset({errno.EXDEV, errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.EPERM, errno.EBADF})
_MODE = 0o444  # links in model folders share it: nobody changes a model in passing


class Blobs:
    """The blobs under one models folder."""

    def __init__(self, models: Path) -> None:
        self._models = models
        self._folder = models / "blobs" / "sha256"
        self.partials = models / "partial"

    def path(self, address: str) -> Path:
        """Where the blob with this digest is, or would be."""
        return self._folder / address.removeprefix("sha256:")

    def has(self, address: str) -> bool:
        return self.path(address).is_file()

    def intact(self, address: str) -> bool:
        """Whether the blob is here and its bytes still are what its name says. One that is not is removed:
        whoever needs it fetches it again."""
        try:
            if digest.of_file(self.path(address)) == address:
                return True
        except FileNotFoundError:
            return False
        self.path(address).unlink()
        return False

    def all(self) -> Iterator[tuple[str, int]]:
        """Digest and bytes of every blob."""
        if self._folder.is_dir():
            for path in sorted(self._folder.iterdir()):
                yield f"sha256:{path.name}", path.stat().st_size

    def need_room(self, count: int) -> None:
        """Raises NotReady `model.no-space` unless `count` more bytes fit beside the node's reserve."""
        self._folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(self._folder).free - DISK_FREE_BYTES_MIN
        if count > free:
            raise NotReady(
                "model.no-space",
                f"{count} bytes are needed and {max(0, free)} may be used",
                hint="allod models prune, or put the home on a larger volume",
                needed=count,
                free=max(0, free),
            )

    def take(self, source: Path, moved: Moved = lambda _count: None) -> str:
        """Copies a file of this machine into the store, unless its content is here; gives its digest.

        Raises NotFound `model.file-not-found`, NotReady `model.no-space`.
        """
        try:
            size = source.stat().st_size
            # Where no blob has this size the content is new: it is hashed while it is copied, read once.
            if any(found == size for _, found in self.all()):
                address = digest.of_file(source)
                if self.intact(address):
                    return address
            self.need_room(size)
            return self._copy(source, moved)
        except FileNotFoundError as e:
            raise NotFound("model.file-not-found", f"there is no file {source}") from e

    def _copy(self, source: Path, moved: Moved) -> str:
        self.partials.mkdir(parents=True, exist_ok=True)
        half = self.partials / f"copy-{os.getpid()}-{secrets.token_hex(4)}"
        with source.open("rb", buffering=0) as f, _created(half) as fd:
            fcntl.flock(fd, fcntl.LOCK_EX)  # an unlocked copy is one whose process has died
            sha, buffer = hashlib.sha256(), memoryview(bytearray(_CHUNK))
            at = 0
            while count := _transfer(f.fileno(), fd, at):
                # What is hashed is what was written, whatever happens to the source meanwhile.
                end = at + count
                while at < end:
                    read = os.preadv(fd, [buffer[: end - at]], at)
                    if not read:
                        raise OSError(errno.EIO, "the disk gives back less than it took", str(half))
                    sha.update(buffer[:read])
                    at += read
                moved(count)
            os.fdatasync(fd)
            address = f"sha256:{sha.hexdigest()}"
            self.keep(half, address)
        return address

    def keep(self, whole: Path, address: str) -> None:
        """Moves a hashed and synced file in place under its digest."""
        whole.chmod(_MODE)
        self._folder.mkdir(parents=True, exist_ok=True)
        whole.replace(self.path(address))
        sync_folder(self._folder)

    @contextlib.contextmanager
    def making(self, key: str) -> Iterator[Path]:
        """The folder in which the one process that fetches `key` keeps what it has so far.

        Waits while another process has it. `key` is hexadecimal. The folder stays unless the caller
        removes it.
        """
        folder = self.partials / key
        while True:
            folder.mkdir(parents=True, exist_ok=True)
            fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX)
                # The one before us may have finished and removed the folder that we waited for.
                if os.fstat(fd).st_nlink and folder.exists() and folder.stat().st_ino == os.fstat(fd).st_ino:
                    yield folder
                    return
            finally:
                os.close(fd)

    def abandoned(self) -> Iterator[Path]:
        """What was begun and belongs to no living process."""
        for path in sorted(self.partials.iterdir()) if self.partials.is_dir() else ():
            with contextlib.suppress(OSError):
                fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    yield path
                finally:
                    os.close(fd)


def _transfer(source: int, target: int, at: int) -> int:
    """Copies up to a window of bytes from and to offset `at`; gives how many, 0 at the source's end.

    The kernel does it where it can: without a copy in this process, and on some file systems without one on
    the disk.
    """
    try:
        return os.copy_file_range(source, target, _WINDOW, at, at)
    except OSError as e:
        if e.errno not in _CANNOT:
            raise
    data = os.pread(source, _CHUNK, at)
    return os.pwrite(target, data, at) if data else 0


@contextlib.contextmanager
def _created(path: Path) -> Iterator[int]:
    """A new file for writing; removed again if it was not moved away."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        yield fd
    finally:
        os.close(fd)
        path.unlink(missing_ok=True)
