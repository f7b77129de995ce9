"""The files of a ledger folder: tiles to read, and the commit record that says how much of them counts.

state        JSON of `State` and the SHA-256 of that line; replaced atomically, it is the commit
checkpoint   the signed note of that state, written right after
checkpoint.cosigned   the latest note that witnesses cosigned
log.vkeys    the log's verifier keys, one per line
tile/ ids/ keys/ openings/
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec

from allod.errors import Integrity
from allod.ledger import tile as tiles
from allod.ledger.edge import Edge
from allod.ledger.tile import ENTRIES, WIDTH, Tile

STATE, CHECKPOINT, COSIGNED, VKEYS, LOCK = "state", "checkpoint", "checkpoint.cosigned", "log.vkeys", "lock"

_PARTIALS_BACK = 64  # full tiles before the edge that may still have partial ones beside them after a crash


class State(msgspec.Struct, frozen=True, kw_only=True):
    """What is committed: files beyond `size` are leftovers."""

    cursors: dict[str, int] = {}  # spool folder -> position up to which its records are in the tree
    erasing: tuple[int, ...] = ()  # leaves whose keys were being destroyed by this commit
    origin: str
    root: str  # hex
    size: int


_ENCODER = msgspec.json.Encoder(order="sorted")
_DECODER = msgspec.json.Decoder(State)


def encode_state(state: State) -> bytes:
    body = _ENCODER.encode(state)
    return body + b"\n" + hashlib.sha256(body).hexdigest().encode() + b"\n"


def decode_state(data: bytes) -> State:
    """Raises Integrity `ledger.damaged`."""
    body, _, digest = data.partition(b"\n")
    try:
        if digest != hashlib.sha256(body).hexdigest().encode() + b"\n":
            raise ValueError("digest")
        return _DECODER.decode(body)
    except (ValueError, msgspec.MsgspecError) as e:
        raise Integrity("ledger.damaged", f"{STATE} is damaged", hint="allod ledger fsck") from e


class Store:
    """Reads tiles and bundles. A wider partial, or the full tile, stands in for a narrower one."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def state(self) -> State | None:
        """The committed state; None in a folder that has none yet."""
        try:
            return decode_state((self.root / STATE).read_bytes())
        except FileNotFoundError:
            return None

    def read(self, tile: Tile) -> bytes:
        """At least `tile.width` items. Raises Integrity `ledger.damaged` where no such file exists."""
        for path in (self.root / tile.path, self.root / tile._replace(width=WIDTH).path):
            try:
                return path.read_bytes()
            except FileNotFoundError:
                continue
        for width in range(tile.width + 1, WIDTH):
            path = self.root / tile._replace(width=width).path
            if path.exists():
                return path.read_bytes()
        raise Integrity(
            "ledger.damaged", f"{tile.path} is missing", hint="allod ledger fsck lists what is damaged"
        )

    def hashes(self, tile: Tile) -> list[bytes]:
        return self._checked(tile, tiles.split_hashes)

    def leaves(self, tile: Tile) -> list[bytes]:
        return self._checked(tile, tiles.split_bundle)

    def leaf(self, index: int, size: int) -> bytes:
        """Leaf `index` of a tree of `size`."""
        number, at = divmod(index, WIDTH)
        return self.leaves(Tile(ENTRIES, number, min(WIDTH, size - number * WIDTH)))[at]

    def edge(self, size: int) -> Edge:
        """The right edge of the tree of `size`. Raises Integrity."""
        levels = []
        for level, width in enumerate(tiles.right_edge(size)):
            number = size >> 8 * (level + 1)
            levels.append(self.hashes(Tile(level, number, width))[:width] if width else [])
        width = size % WIDTH
        leaves = self.leaves(Tile(ENTRIES, size // WIDTH, width))[:width] if width else []
        return Edge(size, levels, [tiles.frame(leaf) for leaf in leaves])

    def trim(self, size: int) -> None:
        """Removes what an interrupted batch left: files beyond `size`, partial tiles beside full ones."""
        for name in (STATE, CHECKPOINT, COSIGNED, VKEYS):
            (self.root / f"{name}.new").unlink(missing_ok=True)
        level = ENTRIES
        while level <= len(tiles.right_edge(size)) or (self.root / f"tile/{level}").exists():
            number, width = divmod(size >> 8 * max(level, 0), WIDTH)
            for n in range(max(0, number - _PARTIALS_BACK), number):
                self.drop_partials(Tile(level, n, WIDTH))
            partials = self.root / f"{Tile(level, number, WIDTH).path}.p"
            for path in partials.glob("*") if partials.exists() else ():
                if int(path.name) > width:
                    path.unlink()
            while (full := self.root / Tile(level, number, WIDTH).path).exists():
                full.unlink()
                number += 1
                self.drop_partials(Tile(level, number, WIDTH))
            self.drop_partials(Tile(level, number + 1, WIDTH))
            level += 1

    def drop_partials(self, full: Tile) -> None:
        """Removes the partial versions of a tile that is full now."""
        shutil.rmtree(self.root / f"{full.path}.p", ignore_errors=True)

    def _checked(self, tile: Tile, split: Callable[[bytes], list[bytes]]) -> list[bytes]:
        data = self.read(tile)
        try:
            found = split(data)
        except ValueError as e:
            raise Integrity("ledger.damaged", f"{tile.path} is damaged: {e}") from e
        if len(found) < tile.width:
            raise Integrity("ledger.damaged", f"{tile.path} is too short")
        return found
