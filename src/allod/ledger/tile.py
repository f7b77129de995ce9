"""The C2SP tlog-tiles layout: where hashes and leaves lie in files. Pure.

A tile holds up to 256 hashes of one level (level L: roots of perfect subtrees of 256^L leaves); an entry
bundle holds the leaves under a level-0 tile, each after a big-endian uint16 length. Full ones never change; a
partial one of width W has its own name ending in `.p/W`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from allod.ledger import tree

WIDTH = 256
TILE_BYTES = WIDTH * tree.HASH_BYTES
ENTRIES = -1  # the "level" of entry bundles


class Tile(NamedTuple):
    """Level (ENTRIES for bundles), number within the level, width 1..256."""

    level: int
    number: int
    width: int

    @property
    def path(self) -> str:
        """Relative path, e.g. `tile/0/x001/234.p/17`."""
        n = self.number
        parts = [f"{n % 1000:03d}"]
        while n >= 1000:
            n //= 1000
            parts.insert(0, f"x{n % 1000:03d}")
        partial = "" if self.width == WIDTH else f".p/{self.width}"
        level = "entries" if self.level == ENTRIES else str(self.level)
        return f"tile/{level}/{'/'.join(parts)}{partial}"


def right_edge(size: int) -> list[int]:
    """Widths of the rightmost tiles of a tree, one per level, 0..255; empty for an empty tree."""
    widths = []
    while size:
        widths.append(size % WIDTH)
        size //= WIDTH
    return widths


def tiles(size: int) -> Iterator[Tile]:
    """Every tile and bundle of a tree of `size`, level by level."""
    for level in range(ENTRIES, max(len(right_edge(size)), 1)):
        count = size >> 8 * max(level, 0)
        for number in range(count // WIDTH):
            yield Tile(level, number, WIDTH)
        if count % WIDTH:
            yield Tile(level, count // WIDTH, count % WIDTH)


def split_hashes(data: bytes) -> list[bytes]:
    """Raises ValueError where the length is no whole number of hashes."""
    if len(data) % tree.HASH_BYTES:
        raise ValueError("not a whole number of hashes")
    return [data[i : i + tree.HASH_BYTES] for i in range(0, len(data), tree.HASH_BYTES)]


def split_bundle(data: bytes) -> list[bytes]:
    """The leaves of a bundle. Raises ValueError where a length runs past the end."""
    leaves = []
    at = 0
    while at < len(data):
        start = at + 2
        at = start + int.from_bytes(data[at:start], "big")
        if start > len(data) or at > len(data):
            raise ValueError("an entry runs past the end")
        leaves.append(data[start:at])
    return leaves


def frame(leaf: bytes) -> bytes:
    """One leaf as it stands in a bundle."""
    return len(leaf).to_bytes(2, "big") + leaf
