"""The growing right edge of the tree: appends leaves in memory and says which files that makes. Pure.

The files of a batch are a function of the edge before it and the leaves, so a batch repeated after a crash
writes the same names again.
"""

from __future__ import annotations

from collections.abc import Iterable

from allod.ledger import tree
from allod.ledger.tile import ENTRIES, WIDTH, Tile, frame


class Edge:
    """Size, the partial tile of each level and the partial entry bundle."""

    def __init__(self, size: int, levels: list[list[bytes]], bundle: list[bytes]) -> None:
        self.size = size
        self.levels = levels  # hashes of the partial tile of level L; may be empty
        self.bundle = bundle  # framed leaves

    @classmethod
    def empty(cls) -> Edge:
        return cls(0, [], [])

    def copy(self) -> Edge:
        return Edge(self.size, [list(level) for level in self.levels], list(self.bundle))

    def append(self, leaves: Iterable[bytes]) -> dict[Tile, bytes]:
        """Adds leaves; returns the content of every tile and bundle that is new, and of no other: a file that
        counts already is never written again."""
        files: dict[Tile, bytes] = {}
        old = self.partial()
        for leaf in leaves:
            self.bundle.append(frame(leaf))
            if len(self.bundle) == WIDTH:
                files[Tile(ENTRIES, self.size // WIDTH, WIDTH)] = b"".join(self.bundle)
                self.bundle = []
            self._push(0, tree.leaf_hash(leaf), files)
            self.size += 1
        for tile, content in self.partial().items():
            if tile not in old:
                files[tile] = b"".join(content)
        return files

    def partial(self) -> dict[Tile, list[bytes]]:
        """The partial tiles and the partial bundle, as pieces to join."""
        found = {Tile(ENTRIES, self.size // WIDTH, len(self.bundle)): self.bundle}
        for level, hashes in enumerate(self.levels):
            found[Tile(level, self.size >> 8 * (level + 1), len(hashes))] = hashes
        return {tile: content for tile, content in found.items() if content}

    def root(self) -> bytes:
        """The RFC 6962 root over all leaves."""
        peaks: list[bytes] = []
        for hashes in reversed(self.levels):
            at = 0
            for bit in range(7, -1, -1):
                if len(hashes) >> bit & 1:
                    peaks.append(tree.subtree_root(hashes[at : at + (1 << bit)]))
                    at += 1 << bit
        return tree.fold_peaks(peaks)

    def _push(self, level: int, digest: bytes, files: dict[Tile, bytes]) -> None:
        if level == len(self.levels):
            self.levels.append([])
        hashes = self.levels[level]
        hashes.append(digest)
        if len(hashes) == WIDTH:
            files[Tile(level, self.size >> 8 * (level + 1), WIDTH)] = b"".join(hashes)
            self.levels[level] = []
            self._push(level + 1, tree.subtree_root(hashes), files)
