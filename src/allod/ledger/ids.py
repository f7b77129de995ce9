"""From receipt id to leaf index. A pure function of the leaves, so it can always be checked and made again.

The leaves come in chunks of INDEX_CHUNK_LEAVES. A full chunk has a file `ids/<number>`: for each leaf,
sorted, the 26 characters of its id and its place in the chunk (big-endian uint16). The chunk that still
fills is a dictionary in memory.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

from allod.limits import INDEX_CHUNK_LEAVES

ID_CHARS = 26
ROW_BYTES = ID_CHARS + 2
_CACHED = 8  # chunk files held in memory, 450 KiB each


def chunk_path(number: int) -> str:
    return f"ids/{number:09d}"


def chunk_bytes(ids: Sequence[str]) -> bytes:
    """The file of a full chunk; `ids` in leaf order."""
    rows = sorted(id_[2:].encode("ascii") + at.to_bytes(2, "big") for at, id_ in enumerate(ids))
    return b"".join(rows)


class Ids:
    """All ids of a log of `size` leaves; `tail` are those of the chunk that still fills."""

    def __init__(self, root: Path, size: int, tail: Sequence[str]) -> None:
        self._root = root
        self._ranges: list[tuple[bytes, bytes]] = []
        self._cache: OrderedDict[int, bytes] = OrderedDict()
        self._newest = b""
        self.tail: dict[str, int] = {}
        for number in range(size // INDEX_CHUNK_LEAVES):
            with (root / chunk_path(number)).open("rb") as f:
                first = f.read(ID_CHARS)
                f.seek(-ROW_BYTES, 2)
                self._seal(first, f.read(ID_CHARS))
        base = len(self._ranges) * INDEX_CHUNK_LEAVES
        self.tail.update({id_: base + at for at, id_ in enumerate(tail)})

    def find(self, id_: str) -> int | None:
        """The leaf index, or None."""
        index = self.tail.get(id_)
        if index is not None or len(id_) != ID_CHARS + 2 or not id_.isascii():
            return index
        row = id_[2:].encode()
        if row > self._newest:
            return None
        for number, (first, last) in enumerate(self._ranges):
            if first <= row <= last:
                data = self._chunk(number)
                at = bisect_left(
                    range(INDEX_CHUNK_LEAVES),
                    row,
                    key=lambda i: data[i * ROW_BYTES : i * ROW_BYTES + ID_CHARS],
                )
                start = at * ROW_BYTES
                if data[start : start + ID_CHARS] == row:
                    place = int.from_bytes(data[start + ID_CHARS : start + ROW_BYTES], "big")
                    return number * INDEX_CHUNK_LEAVES + place
        return None

    def full_chunks(self, ids: Sequence[str]) -> list[tuple[str, bytes]]:
        """The chunk files that adding `ids` completes, before `commit` adds them."""
        waiting = [*self.tail, *ids]
        first = len(self._ranges)
        return [
            (
                chunk_path(first + n),
                chunk_bytes(waiting[n * INDEX_CHUNK_LEAVES : (n + 1) * INDEX_CHUNK_LEAVES]),
            )
            for n in range(len(waiting) // INDEX_CHUNK_LEAVES)
        ]

    def commit(self, ids: Sequence[str], chunks: Sequence[tuple[str, bytes]]) -> None:
        """Adds ids whose leaves are in the tree; `chunks` are what `full_chunks` gave, now on disk."""
        base = len(self._ranges) * INDEX_CHUNK_LEAVES
        waiting = [*self.tail, *ids]
        for _, data in chunks:
            self._seal(data[:ID_CHARS], data[-ROW_BYTES:-2])
        done = len(chunks) * INDEX_CHUNK_LEAVES
        if done:
            self.tail = {id_: base + done + at for at, id_ in enumerate(waiting[done:])}
        else:
            at = base + len(self.tail)
            self.tail.update({id_: at + n for n, id_ in enumerate(ids)})

    def leftovers(self) -> list[Path]:
        """Chunk files of a batch that was not committed."""
        found = []
        number = len(self._ranges)
        while (path := self._root / chunk_path(number)).exists():
            found.append(path)
            number += 1
        return found

    def _seal(self, first: bytes, last: bytes) -> None:
        self._ranges.append((first, last))
        self._newest = max(self._newest, last)

    def _chunk(self, number: int) -> bytes:
        data = self._cache.pop(number, None)
        if data is None:
            data = (self._root / chunk_path(number)).read_bytes()
        self._cache[number] = data
        if len(self._cache) > _CACHED:
            self._cache.popitem(last=False)
        return data
