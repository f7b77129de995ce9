"""Building proofs from tiles, and the C2SP `.tlog-proof` text that carries one. Pure over a tile source."""

from __future__ import annotations

from typing import Protocol

import msgspec

from allod.errors import Integrity, NotFound
from allod.ledger import tree
from allod.ledger.tile import WIDTH, Tile
from allod.limits import PROOF_HASHES_MAX
from allod.signing import b64, unb64

_HEADER = "c2sp.org/tlog-proof@v1"


class TileSource(Protocol):
    def hashes(self, tile: Tile) -> list[bytes]:
        """At least `tile.width` hashes of that tile; a wider one will do. Raises Integrity if missing."""
        ...


class Prover:
    """Proofs within the tree of `size` leaves. Keeps the tiles it read."""

    def __init__(self, source: TileSource, size: int) -> None:
        self._source = source
        self._size = size
        self._tiles: dict[tuple[int, int], list[bytes]] = {}

    def root(self) -> bytes:
        return self.range_root(0, self._size) if self._size else tree.EMPTY_ROOT

    def inclusion(self, index: int) -> tuple[bytes, ...]:
        """The path from leaf `index`, its sibling first. Raises NotFound outside the tree."""
        if not 0 <= index < self._size:
            raise NotFound("ledger.no-leaf", f"the tree has no leaf {index}")
        path: list[bytes] = []
        lo, hi = 0, self._size
        while hi - lo > 1:
            k = tree.split(hi - lo)
            if index < lo + k:
                path.append(self.range_root(lo + k, hi))
                hi = lo + k
            else:
                path.append(self.range_root(lo, lo + k))
                lo += k
        return tuple(reversed(path))

    def consistency(self, old_size: int) -> tuple[bytes, ...]:
        """The proof from the tree of `old_size`; empty for 0 and for the whole. Raises NotFound beyond it."""
        if not 0 <= old_size <= self._size:
            raise NotFound("ledger.no-size", f"the tree was never of size {old_size}")
        if old_size in {0, self._size}:
            return ()
        path: list[bytes] = []
        lo, hi, whole = 0, self._size, True
        while old_size != hi:
            k = tree.split(hi - lo)
            if old_size <= lo + k:
                path.append(self.range_root(lo + k, hi))
                hi = lo + k
            else:
                path.append(self.range_root(lo, lo + k))
                lo += k
                whole = False
        if not whole:
            path.append(self.range_root(lo, hi))
        return tuple(reversed(path))

    def range_root(self, lo: int, hi: int) -> bytes:
        """The root over leaves lo..hi-1, where lo is a multiple of the largest power of two in the range."""
        peaks = []
        while lo < hi:
            height = (hi - lo).bit_length() - 1
            peaks.append(self._subtree(lo, height))
            lo += 1 << height
        return tree.fold_peaks(peaks)

    def _subtree(self, start: int, height: int) -> bytes:
        level, inside = divmod(height, 8)
        first = start >> 8 * level
        number, offset = divmod(first, WIDTH)
        hashes = self._tiles.get((level, number))
        if hashes is None:
            width = min(WIDTH, (self._size >> 8 * level) - number * WIDTH)
            hashes = self._tiles[level, number] = self._source.hashes(Tile(level, number, width))
        return tree.subtree_root(hashes[offset : offset + (1 << inside)])


class TlogProof(msgspec.Struct, frozen=True):
    """An inclusion proof with the checkpoint note it leads to, verbatim. `extra` is not authenticated."""

    index: int
    path: tuple[bytes, ...]
    checkpoint: bytes
    extra: bytes = b""

    def encode(self) -> str:
        extra = [f"extra {b64(self.extra)}"] if self.extra else []
        lines = [_HEADER, *extra, f"index {self.index}", *(b64(h) for h in self.path), ""]
        return "\n".join(lines) + "\n" + self.checkpoint.decode()

    @classmethod
    def parse(cls, text: str) -> TlogProof:
        """Raises Integrity `proof.malformed`; nothing is verified yet."""
        head, blank, checkpoint = text.partition("\n\n")
        lines = head.split("\n")
        try:
            if not blank or lines.pop(0) != _HEADER:
                raise ValueError("header")
            extra: bytes | None = b""
            if lines[0].startswith("extra "):
                extra = unb64(lines.pop(0)[6:])
            word, _, number = lines.pop(0).partition(" ")
            index = int(number)
            path = [unb64(line) for line in lines]
            if word != "index" or str(index) != number or extra is None or len(path) > PROOF_HASHES_MAX:
                raise ValueError("layout")
            hashes = tuple(h for h in path if h is not None and len(h) == tree.HASH_BYTES)
            if len(hashes) != len(path):
                raise ValueError("hash")
            note = checkpoint.encode()
        except (ValueError, IndexError) as e:
            raise Integrity("proof.malformed", "this is not a transparency log proof") from e
        return cls(index, hashes, note, extra)
