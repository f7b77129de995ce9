"""Reading what the front workers spooled, each record once, until it is in the tree.

The reader keeps no state of its own on disk: cursors travel with the entries into the log's commit and
come back from it. A begun record of a dead worker becomes one "interrupted" entry; whether a worker is dead
is known from its flock, which the kernel drops with the process.
"""

from __future__ import annotations

import contextlib
import fcntl
import math
import mmap
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

from allod.clock import Clock
from allod.ledger import intent as intents
from allod.ledger import segment as sg
from allod.ledger import statement
from allod.ledger.segment import Damage, Entry
from allod.ledger.spool import LOCK_NAME, SUFFIX
from allod.limits import DRAIN_ENTRIES_MAX

_STUCK_S = 2.0  # a frame takes microseconds to write
FINISHED = 1 << 62  # the cursor of a folder of which nothing is left to read


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """Entries, and the cursors (folder name -> position) that are right once those entries are committed."""

    entries: tuple[Entry, ...]
    cursors: dict[str, int]
    damage: tuple[Damage, ...] = ()


class SpoolReader:
    """Reads all folders under `root`. One per ledger; not thread-safe."""

    def __init__(self, root: Path, clock: Clock) -> None:
        self._root = root
        self._clock = clock
        self._folders: dict[str, _Folder] = {}

    def drain(self, cursors: Mapping[str, int], limit: int = DRAIN_ENTRIES_MAX) -> Batch:
        """Up to about `limit` entries after `cursors`, the committed ones. No entries: nothing is waiting.

        Asking again with the same cursors gives the same entries again.
        """
        entries: list[Entry] = []
        damage: list[Damage] = []
        names = self._names()
        after = {name: at for name, at in cursors.items() if name in names}
        for name in names:
            at = after.get(name, 0)
            if at == FINISHED:
                continue
            folder = self._folders.get(name)
            if folder is None or folder.position != at:
                folder = self._folders[name] = _Folder(self._root / name, at)
            after[name] = folder.read(entries, damage, limit, self._clock)
            if len(entries) >= limit:
                break
        return Batch(entries=tuple(entries), cursors=after, damage=tuple(damage))

    def release(self, cursors: Mapping[str, int]) -> None:
        """Deletes segments and folders of which the committed `cursors` leave nothing to read."""
        for name in self._names():
            if cursors.get(name) == FINISHED:
                shutil.rmtree(self._root / name, ignore_errors=True)
                self._folders.pop(name, None)
            elif (folder := self._folders.get(name)) is not None:
                folder.release(cursors.get(name, 0))

    def waiting(self) -> int:
        """Bytes of segments on disk: what the spools hold, integrated or not."""
        return sum(f.stat().st_size for name in self._names() for f in (self._root / name).glob(f"*{SUFFIX}"))

    def _names(self) -> list[str]:
        with contextlib.suppress(FileNotFoundError):
            return sorted(e.name for e in os.scandir(self._root) if e.is_dir() and e.name[0] != ".")
        return []


class _Folder:
    """One worker's folder, read up to `position`; `_open` are the records begun before it and not ended."""

    def __init__(self, path: Path, position: int) -> None:
        self.path = path
        self.position = position
        self._open: dict[str, tuple[int, bytes]] = {}  # id -> segment number, intent
        self._number = -1
        self._map: mmap.mmap | None = None
        self._offset = self._base = 0
        self._stuck = (-1, 0.0)  # where a living worker's frame did not check, and since when; inf: reported
        while self._enter_next(below=position):
            if not self._skip_to(position):
                break
            self._leave()

    def read(self, entries: list[Entry], damage: list[Damage], limit: int, clock: Clock) -> int:
        """Appends what is new; returns the position reached, FINISHED after a dead worker's last record."""
        dead = not self._alive()  # asked before reading: what a dead worker wrote is all there
        while len(entries) < limit:
            if self._map is None and not self._enter_next():
                if dead:
                    entries.extend(self._interrupted(damage, clock))
                    self.position = FINISHED
                break
            sealed = self._read_segment(entries, damage, limit, dead)
            if not sealed and not dead and len(entries) < limit:
                self._watch(damage, clock.monotonic())
            if not sealed and (not dead or len(entries) >= limit):
                break
            self._leave()
        return self.position

    def release(self, committed: int) -> None:
        """Deletes segments wholly before `committed` in which no open record began.

        A record begun in a segment that stays and ended in one that goes would look interrupted to a later
        reader, should the worker die: the log drops it then, as it has that id already.
        """
        needed = {number for number, _ in self._open.values()}
        for number, path in self._segments():
            head = _header(path)
            if self._map is not None and number >= self._number:
                return
            if head is not None and (number + 1) * head[1] <= committed and number not in needed:
                path.unlink()

    def _read_segment(self, entries: list[Entry], damage: list[Damage], limit: int, dead: bool) -> bool:
        """Reads frames up to the seal (True), or to the limit or the end of what is written (False).

        In a living worker's segment a frame that does not check is waited for: it may be half written.
        """
        assert self._map is not None
        with memoryview(self._map) as view:
            while len(entries) < limit:
                frame = sg.read_frame(view, self._offset, self._base)
                if isinstance(frame, sg.Frame):
                    self._offset = frame.end
                    self.position = self._base + frame.end
                    if frame.kind == sg.SEAL:
                        return True
                    self._take(frame, entries)
                    continue
                if not dead:
                    return False
                following = sg.next_frame(view, self._offset, self._base)
                if frame is None and following is None:
                    # The end; or a payload whose frame its worker did not live to write, so that nobody was
                    # promised anything of it.
                    return False
                damage.append(self._damage(self._number, self._offset, frame or "records after a gap"))
                if following is None:
                    return False
                self._offset = following
        return False

    def _watch(self, damage: list[Damage], now_s: float) -> None:
        """Says, once, that a living worker's segment cannot be read on: half a frame does not stay half."""
        assert self._map is not None
        with memoryview(self._map) as view:
            frame = sg.read_frame(view, self._offset, self._base)
        if not isinstance(frame, str):
            return
        at, since_s = self._stuck
        if at != self._offset:
            self._stuck = (self._offset, now_s)
        elif now_s - since_s > _STUCK_S:
            self._stuck = (at, math.inf)
            damage.append(self._damage(self._number, at, f"{frame}; read on when its worker has ended"))

    def _skip_to(self, position: int) -> bool:
        """Reads again what was committed, for the open records. True if it used the whole segment up."""
        assert self._map is not None
        with memoryview(self._map) as view:
            stop = min(position - self._base, len(view))
            while self._offset < stop:
                frame = sg.read_frame(view, self._offset, self._base)
                if not isinstance(frame, sg.Frame):
                    following = sg.next_frame(view, self._offset, self._base)
                    self._offset = stop if following is None else min(following, stop)
                    continue
                self._offset = frame.end
                if frame.kind == sg.SEAL:
                    return True
                self._take(frame, None)
            return stop == len(view)

    def _take(self, frame: sg.Frame, entries: list[Entry] | None) -> None:
        if frame.kind == sg.BEGIN:
            self._open[frame.payload[4:32].decode("ascii", "replace")] = (self._number, frame.payload)
            return
        entry = sg.parse_end(frame.payload)
        self._open.pop(entry.id, None)
        if entries is not None:
            entries.append(entry)

    def _interrupted(self, damage: list[Damage], clock: Clock) -> Iterator[Entry]:
        for receipt_id, (number, payload) in self._open.items():
            try:
                intent = intents.decode(payload)
            except msgspec.MsgspecError:
                damage.append(self._damage(number, 0, f"the intent of {receipt_id} cannot be read"))
                continue
            leaf = statement.encode(intents.interrupted(intent, clock.now_us()))
            yield Entry(intent.id, leaf, intent.key)

    def _damage(self, number: int, offset: int, reason: str) -> Damage:
        return Damage(path=f"{self.path.name}/{number:012d}{SUFFIX}", offset=offset, reason=reason)

    def _enter_next(self, below: int | None = None) -> bool:
        """Maps the segment after the last one read; with `below`, only if it starts before that position."""
        for number, path in self._segments():
            head = _header(path) if number > self._number else None
            if head is None or head[0] != number or (below is not None and number * head[1] >= below):
                continue
            with path.open("rb") as f:
                self._map = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ)
            self._number, self._base, self._offset = number, number * head[1], sg.HEADER_BYTES
            return True
        return False

    def _leave(self) -> None:
        assert self._map is not None
        self._map.close()
        self._map = None

    def _segments(self) -> list[tuple[int, Path]]:
        return sorted((int(p.stem), p) for p in self.path.glob(f"*{SUFFIX}") if p.stem.isdigit())

    def _alive(self) -> bool:
        """Whether the writer still holds its lock."""
        try:
            fd = os.open(self.path / LOCK_NAME, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(fd)
        return False


def _header(path: Path) -> tuple[int, int] | None:
    with path.open("rb") as f:
        return sg.read_header(f.read(sg.HEADER_BYTES))
