"""A front worker's write-ahead log: what it wrote survives kill -9 at once, and power loss after `sync`.

Records are copied into a preallocated, memory-mapped segment: the kernel owns the bytes from that moment, so
the death of the process loses nothing. `sync` (fdatasync, without the interpreter lock) makes them survive
the machine. Space is taken before a request is: what `begin` accepted always finds room for its `end`.

One process writes a folder and holds an flock on it for as long as it lives; `drain.SpoolReader` reads it.
The preallocation promise holds on file systems that overwrite in place (ext4, xfs, tmpfs); a copy-on-write
file system can still run out of space, which then ends the worker instead of losing a record silently.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import threading
import time
from collections import deque
from pathlib import Path
from zlib import crc32

from allod.errors import NotReady, Unprocessable, Usage
from allod.ledger import segment as sg
from allod.ledger.files import not_ready, sync_folder
from allod.limits import (
    LEAF_BYTES_MAX,
    SPOOL_BYTES_MAX,
    SPOOL_END_BYTES_MAX,
    SPOOL_INTENT_BYTES_MAX,
    SPOOL_OPENING_BYTES_MAX,
    SPOOL_SEGMENT_BYTES,
    SPOOL_SEGMENT_BYTES_MIN,
)

LOCK_NAME = "lock"
SUFFIX = ".seg"

_TAIL_BYTES = sg.PAYLOAD_BYTES_MAX + 2 * sg.FRAME_BYTES  # what a rotation may leave unused, and the seal
_ADMISSION_BYTES = SPOOL_INTENT_BYTES_MAX + SPOOL_END_BYTES_MAX + 2 * sg.FRAME_BYTES
_RETRY_S = 1.0
_pack_frame = sg.FRAME.pack_into


class _Segment:
    """One preallocated, mapped file and where its next frame goes."""

    __slots__ = ("base", "fd", "limit", "map", "offset")

    def __init__(self, folder: Path, number: int, segment_bytes: int) -> None:
        path = folder / f"{number:012d}{SUFFIX}"
        self.fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(self.fd, 0, segment_bytes)
            os.pwrite(self.fd, sg.header(number, segment_bytes), 0)
            os.fsync(self.fd)
            self.map = mmap.mmap(self.fd, segment_bytes)
            sync_folder(folder)
        except BaseException:
            os.close(self.fd)
            path.unlink()
            raise
        self.base = number * segment_bytes
        self.offset = sg.HEADER_BYTES
        self.limit = segment_bytes - sg.FRAME_BYTES  # room for the seal

    def close(self) -> None:
        self.map.close()
        os.close(self.fd)


class Spool:
    """`begin`, `end` and `check` belong to one thread; `sync` may run in another."""

    def __init__(self, folder: Path, lock_fd: int, segment_bytes: int) -> None:
        self.folder = folder
        self._lock_fd = lock_fd
        self._segment_bytes = segment_bytes
        self._usable = segment_bytes - sg.HEADER_BYTES - _TAIL_BYTES
        self._growing = threading.Lock()
        self._syncing = threading.Lock()
        self._next_number = 0
        self._ready: deque[_Segment] = deque()
        self._written: list[_Segment] = []  # left behind by rotation, not yet synced
        self._in_sync: list[_Segment] = []  # of these, what the sync under way makes durable
        self._open: set[bytes] = set()  # ids begun and not ended
        self._admits = 0  # so many requests may begin before room has to be counted again
        self._refused: tuple[float, NotReady] | None = None
        self._failed: OSError | None = None
        self._durable = 0
        self._position = 0
        self._grow()
        self._current = self._ready.popleft()

    @classmethod
    def open(cls, root: Path, worker: str, *, segment_bytes: int = SPOOL_SEGMENT_BYTES) -> Spool:
        """Creates `root/<worker>-<pid>-<ns>/`. NotReady `ledger.no-space`; Usage on a bad size or name."""
        if segment_bytes < SPOOL_SEGMENT_BYTES_MIN or segment_bytes % mmap.PAGESIZE:
            raise Usage(
                "ledger.segment-size",
                f"a segment has at least {SPOOL_SEGMENT_BYTES_MIN} bytes, in whole pages",
            )
        if not worker or "/" in worker or worker.startswith("."):
            raise Usage("ledger.worker-name", f"{worker!r} cannot name a spool folder")
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        name = f"{worker}-{os.getpid()}-{time.time_ns()}"
        born = root / f".{name}"  # the reader ignores it until its lock is held
        try:
            born.mkdir(mode=0o700)
            lock_fd = os.open(born / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as e:
            raise not_ready(e) from e
        fcntl.flock(lock_fd, fcntl.LOCK_EX)
        folder = root / name
        born.rename(folder)
        sync_folder(root)
        try:
            return cls(folder, lock_fd, segment_bytes)
        except BaseException:
            os.close(lock_fd)  # the reader removes the empty folder
            raise

    def check(self) -> None:
        """Returns if one more request and everything begun fits; costs well under a microsecond then.

        Raises NotReady: `ledger.no-space` (disk full), `ledger.backlog` (nobody integrates what was written),
        `ledger.io` (a sync failed: the kernel may have dropped pages, so this worker has to be replaced).
        """
        if self._failed is not None:
            raise not_ready(self._failed)
        if self._admits <= 0:
            reserved = self._reserved()
            if self._free() < reserved + _ADMISSION_BYTES:
                self._grow_until(reserved + _ADMISSION_BYTES)
            # A rotation leaves at most a tail unused, which `_free` has set aside in every segment.
            self._admits = (self._free() - reserved) // _ADMISSION_BYTES

    def begin(self, intent: bytes) -> int:
        """Writes the intent and sets space aside for its end. Returns the position after it.

        Raises NotReady as `check` does (nothing is written then), Unprocessable if the intent is too large.
        """
        if len(intent) > SPOOL_INTENT_BYTES_MAX:
            raise Unprocessable(
                "ledger.intent-too-large", f"an intent has at most {SPOOL_INTENT_BYTES_MAX} bytes"
            )
        if not (intent.startswith(b"\xdc") and intent.startswith(b"\xbcr-", 3)):
            raise Unprocessable("ledger.intent-malformed", "an intent is the msgpack of intent.Intent")
        if self._admits <= 0 or self._failed is not None:
            self.check()
        self._admits -= 1
        self._open.add(intent[4:32])
        return self._write(sg.BEGIN, intent)

    def end(self, receipt_id: str, leaf: bytes, key: bytes, opening: bytes = b"") -> int:
        """Writes the finished record. Returns the position after it: durable once `sync` returned as much.

        `opening` is a private note kept beside the key and destroyed with it. Never raises for an id that was
        begun and a record of at most SPOOL_END_BYTES_MAX; otherwise NotReady as `check` does.
        """
        ident = receipt_id.encode("ascii")
        if len(ident) != 28 or len(key) != 32:
            raise Unprocessable("ledger.record-malformed", "a record has a 28-character id and a 32-byte key")
        if len(leaf) > LEAF_BYTES_MAX or len(opening) > SPOOL_OPENING_BYTES_MAX:
            raise Unprocessable("ledger.leaf-too-large", f"a leaf has at most {LEAF_BYTES_MAX} bytes")
        payload = sg.END_HEAD.pack(ident, key, len(leaf)) + leaf + opening
        begun = ident in self._open
        self._open.discard(ident)
        if not begun or len(payload) > SPOOL_END_BYTES_MAX:
            self._admits = 0
            needed = self._reserved() + len(payload) + sg.FRAME_BYTES
            if self._free() < needed:
                try:
                    self._grow_until(needed)
                except NotReady:
                    if begun:
                        self._open.add(ident)
                    raise
        return self._write(sg.END, payload)

    def sync(self) -> int:
        """Blocks until everything written before the call is on the disk; returns that position.

        Meant for a thread: the interpreter lock is free meanwhile. Also prepares the next segment. Raises
        NotReady `ledger.io` if the disk refused, and from then on always: after a failed sync the kernel
        marks the pages clean, so a second try would report a success that is none.
        """
        with self._syncing:
            position, files = self.sync_files()
            try:
                for fd in files:
                    os.fdatasync(fd)
            except OSError as e:
                self.sync_failed(e)
                raise not_ready(e) from e
            self.sync_done(position)
            if self.wants_room:
                self.make_room()
            return position

    def sync_files(self) -> tuple[int, list[int]]:
        """For a writer that syncs by itself, one sync at a time: the position that is durable once each of
        these files has been through fdatasync. Then call `sync_done` or `sync_failed`. Raises as `sync`."""
        if self._failed is not None:
            raise not_ready(self._failed)
        position = self._position
        # `_rotate` files the old segment before it installs the new one, so in this order none is missed
        current = self._current
        self._in_sync = [seg for seg in self._written if seg is not current]
        if position <= self._durable:
            return position, []
        return position, [*(seg.fd for seg in self._in_sync), current.fd]

    def sync_done(self, position: int) -> None:
        """The files of `sync_files` are on the disk."""
        if position > self._durable:
            self._durable = position
            for seg in self._in_sync:
                self._written.remove(seg)
                seg.close()
        self._in_sync = []

    def sync_failed(self, error: OSError) -> None:
        """The disk refused: from now on every check and sync does, as for `sync`."""
        self._failed = error

    @property
    def wants_room(self) -> bool:
        """Whether the next segment should be prepared now: `make_room` takes milliseconds, so in a thread."""
        return self._free() < self._reserved() + self._segment_bytes // 2

    def make_room(self) -> None:
        """Prepares the next segment; a full disk is said by `check`, to the next request."""
        with contextlib.suppress(NotReady):
            self._grow_until(self._free() + 1)

    def close(self) -> None:
        """Syncs and gives the lock up; the reader takes what is left. Begun, not ended: "interrupted"."""
        try:
            self.sync()
        finally:
            for seg in (*self._written, self._current, *self._ready):
                seg.close()
            self._written.clear()
            self._ready.clear()
            os.close(self._lock_fd)

    def _free(self) -> int:
        left = self._current.limit - self._current.offset - _TAIL_BYTES
        return max(left, 0) + len(self._ready) * self._usable

    def _reserved(self) -> int:
        return len(self._open) * (SPOOL_END_BYTES_MAX + sg.FRAME_BYTES)

    def _write(self, kind: int, payload: bytes) -> int:
        current = self._current
        size = len(payload)
        offset = current.offset
        end = offset + sg.FRAME_BYTES + size
        if end > current.limit:
            current = self._rotate()
            offset = current.offset
            end = offset + sg.FRAME_BYTES + size
        crc = crc32(payload, current.base + offset & 0xFFFFFFFF)  # as sg.checksum
        # Payload first: a reader, and the reader after a kill, see a frame only once it is whole.
        current.map[offset + sg.FRAME_BYTES : end] = payload
        _pack_frame(current.map, offset, sg.FRAME_MAGIC, kind, 0, size, crc)
        current.offset = end
        self._position = position = current.base + end
        return position

    def _rotate(self) -> _Segment:
        old = self._current
        crc = sg.checksum(b"", old.base + old.offset)
        sg.FRAME.pack_into(old.map, old.offset, sg.FRAME_MAGIC, sg.SEAL, 0, 0, crc)
        self._written.append(old)
        self._current = self._ready.popleft()
        return self._current

    def _grow_until(self, needed: int) -> None:
        if self._refused is not None and time.monotonic() < self._refused[0]:
            raise self._refused[1].with_traceback(None)
        while self._free() < needed:
            try:
                self._grow()
            except NotReady as e:
                self._refused = (time.monotonic() + _RETRY_S, e)
                raise
        self._refused = None

    def _grow(self) -> None:
        with self._growing:
            kept = sum(1 for name in os.listdir(self.folder) if name.endswith(SUFFIX))
            if (kept + 1) * self._segment_bytes > SPOOL_BYTES_MAX:
                raise NotReady(
                    "ledger.backlog",
                    f"{kept} spool segments wait to be integrated",
                    hint="the control process integrates them: allod status",
                    retry_after_s=5,
                )
            try:
                seg = _Segment(self.folder, self._next_number, self._segment_bytes)
            except OSError as e:
                raise not_ready(e) from e
            self._next_number += 1
            self._ready.append(seg)
