"""Checks every byte of a ledger folder and names what is damaged.

The order of trust: the log's public keys, the checkpoint they signed, the tree that has its root, and from
the leaves of that tree everything else: tiles, id files and keys are recomputed and compared. Where a bundle
and the tile above it disagree, the side that still leads to the signed root is right.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import msgspec

from allod.errors import AllodError, Integrity
from allod.ledger import checkpoint as cp
from allod.ledger import store as st
from allod.ledger import tile as tiles
from allod.ledger.edge import Edge
from allod.ledger.erasure import Erasure, read_leaf
from allod.ledger.ids import chunk_bytes, chunk_path
from allod.ledger.keys import ERASED, KEY_BYTES, keys_path, openings_path, sealed_notes, unseal
from allod.ledger.store import State
from allod.ledger.tile import ENTRIES, WIDTH, Tile
from allod.ledger.tree import HASH_BYTES, subtree_root
from allod.limits import INDEX_CHUNK_LEAVES
from allod.signing import VKey


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One damage: `path` is relative to the ledger folder; `where` an offset or a leaf index, as text."""

    path: str
    where: str
    reason: str


class Report(msgspec.Struct, frozen=True, kw_only=True):
    size: int  # leaves that were checked
    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        return not self.findings


class _Leaf(msgspec.Struct, frozen=True):
    """What the other files are compared with."""

    id: str
    key_check: str
    erases: str  # id of the record it erased, or ""


def fsck(root: Path, vkeys: Sequence[VKey], witnesses: Sequence[VKey] = ()) -> Report:
    """Reads the whole folder and changes nothing. Not while a process appends: use a copy then.

    `vkeys` are the log's keys, all of which have to have signed. A cosignature of an unknown witness is a
    finding too: nobody could tell whether it was changed. Never raises for damage.
    """
    check = _Check(root, tuple(vkeys), tuple(witnesses))
    check.run()
    return Report(size=check.state.size if check.state else 0, findings=tuple(check.findings))


_UNKNOWN = _Leaf("", "", "")


class _Check:
    def __init__(self, root: Path, vkeys: tuple[VKey, ...], witnesses: tuple[VKey, ...]) -> None:
        self.root = root
        self.vkeys = vkeys
        self.witnesses = witnesses
        self.findings: list[Finding] = []
        self.state: State | None = None
        self.expected: set[str] = set()
        self.edge = Edge.empty()
        self.hashes: dict[Tile, bytes] = {}  # tiles recomputed from the bundles
        self.bad: set[int] = set()  # leaves that are not what was logged

    def run(self) -> None:
        state = self.state = self._state()
        root = self._notes(state)
        if state is None:
            return
        if root is not None and root.hex() != state.root:
            self._found(st.STATE, "root", "the committed root is not the signed one")
        leaves = self._tree(state)
        self._ids(leaves)
        self._keys(leaves, state)
        self._strays()

    def _found(self, path: str, where: object, reason: str) -> None:
        self.findings.append(Finding(path=path, where=str(where), reason=reason))

    def _read(self, path: str) -> bytes | None:
        """The file's bytes; a missing one is a finding."""
        self.expected.add(path)
        try:
            return (self.root / path).read_bytes()
        except OSError as e:
            self._found(path, 0, f"cannot be read: {e.strerror}")
            return None

    def _state(self) -> State | None:
        data = self._read(st.STATE)
        if data is None:
            return None
        try:
            return st.decode_state(data)
        except Integrity as e:
            self._found(st.STATE, 0, e.message)
            return None

    def _notes(self, state: State | None) -> bytes | None:
        """The signed root of the committed size, from the checkpoint."""
        keys = self._read(st.VKEYS)
        if keys is not None and keys != "".join(f"{k}\n" for k in self.vkeys).encode():
            self._found(st.VKEYS, 0, "these are not the keys of the log")
        signed = None
        for name in (st.CHECKPOINT, st.COSIGNED):
            if name == st.COSIGNED and not (self.root / name).exists():
                continue
            verified = self._note(name)
            if verified is not None and state is not None and verified.checkpoint.size == state.size:
                signed = verified.checkpoint.root
            elif verified is not None and state is not None and name == st.CHECKPOINT:
                self._found(name, "size", f"signed {verified.checkpoint.size} leaves, committed {state.size}")
        return signed

    def _note(self, name: str) -> cp.Verified | None:
        data = self._read(name)
        if data is None:
            return None
        try:
            verified = cp.verify(data, self.vkeys, self.witnesses)
        except AllodError as e:
            self._found(name, 0, e.message)
            return None
        known = {(k.name, k.key_id) for k in (*self.vkeys, *self.witnesses)}
        for signature in verified.note.signatures:
            if (signature.name, signature.key_id) not in known:
                self._found(name, signature.name, "signed by an unknown key")
        if len(verified.log) != len(self.vkeys):
            self._found(name, 0, "not all keys of the log signed")
        return verified

    def _tree(self, state: State) -> list[_Leaf]:
        """Reads all bundles, rebuilds the tiles and compares. Returns what the leaves say."""
        found: list[_Leaf] = []
        bundles = [t for t in tiles.tiles(state.size) if t.level == ENTRIES]
        for bundle in bundles:
            leaves = self._bundle(bundle)
            if leaves is None:
                self.bad.update(range(bundle.number * WIDTH, bundle.number * WIDTH + bundle.width))
                leaves = [b""] * bundle.width
            for tile, content in self.edge.append(leaves).items():
                if tile.level != ENTRIES and tile.width == WIDTH:
                    self.hashes[tile] = content
            found.extend(_read(leaf) for leaf in leaves)
        self.hashes.update({t: b"".join(parts) for t, parts in self.edge.partial().items()})
        sound = self.edge.root().hex() == state.root
        for tile in tiles.tiles(state.size):
            if tile.level != ENTRIES:
                self._tile(tile, sound)
        for bundle in bundles:
            self._partials(bundle)
        for index in self.bad:
            found[index] = _UNKNOWN
        return found

    def _bundle(self, bundle: Tile) -> list[bytes] | None:
        data = self._read(bundle.path)
        if data is None:
            return None
        try:
            leaves = tiles.split_bundle(data)
        except ValueError as e:
            self._found(bundle.path, 0, str(e))
            return None
        if len(leaves) != bundle.width:
            self._found(bundle.path, 0, f"holds {len(leaves)} leaves, not {bundle.width}")
            return None
        return leaves

    def _tile(self, tile: Tile, sound: bool) -> None:
        """Compares one tile with what the bundles give. `sound`: the bundles lead to the committed root."""
        data = self._read(tile.path)
        self._partials(tile)
        rebuilt = self.hashes.get(tile)
        if data is None or data == rebuilt:
            return
        if rebuilt is None or len(data) != len(rebuilt):
            self._found(tile.path, min(len(data), len(rebuilt or b"")), "has the wrong length")
            return
        at = next(i for i in range(len(data)) if data[i] != rebuilt[i])
        if sound or not self._trusted(tile, data):
            self._found(tile.path, at, "is not the tree over the leaves")
        if sound or tile.level != 0:
            return
        for i in range(0, len(data), HASH_BYTES):
            index = tile.number * WIDTH + i // HASH_BYTES
            if data[i : i + HASH_BYTES] != rebuilt[i : i + HASH_BYTES] and index not in self.bad:
                self.bad.add(index)
                bundle = Tile(ENTRIES, tile.number, tile.width)
                self._found(bundle.path, f"leaf {index}", "is not the leaf that was logged")

    def _trusted(self, tile: Tile, data: bytes) -> bool:
        """Whether the tile on disk is what the tile above it, or the committed root, says it is."""
        assert self.state is not None
        store = st.Store(self.root)
        try:
            if tile.width == WIDTH:
                number, at = divmod(tile.number, WIDTH)
                width = min(WIDTH, (self.state.size >> 8 * (tile.level + 1)) - number * WIDTH)
                above = store.hashes(Tile(tile.level + 1, number, width))[at]
                return subtree_root(tiles.split_hashes(data)) == above
            return store.edge(self.state.size).root().hex() == self.state.root
        except (AllodError, IndexError, OSError, ValueError):
            return False

    def _partials(self, tile: Tile) -> None:
        """Older partial versions of a tile have to be the beginning of it."""
        folder = self.root / f"{tile._replace(width=WIDTH).path}.p"
        if not folder.is_dir():
            return
        whole = (self.root / tile.path).read_bytes() if (self.root / tile.path).exists() else b""
        for path in sorted(folder.iterdir()):
            name = str(path.relative_to(self.root))
            if not path.name.isdigit() or not 0 < int(path.name) < WIDTH or name == tile.path:
                continue
            self.expected.add(name)
            data = path.read_bytes()
            width = int(path.name)
            try:
                split = tiles.split_bundle if tile.level == ENTRIES else tiles.split_hashes
                short = len(split(data)) != width or width > tile.width
            except ValueError:
                short = True
            if short or not whole.startswith(data):
                self._found(name, 0, "is not the beginning of the present tile")

    def _ids(self, leaves: Sequence[_Leaf]) -> None:
        for number in range(len(leaves) // INDEX_CHUNK_LEAVES):
            path = chunk_path(number)
            data = self._read(path)
            ids = [leaf.id for leaf in leaves[number * INDEX_CHUNK_LEAVES :][:INDEX_CHUNK_LEAVES]]
            if data is None or not all(ids):
                continue
            rebuilt = chunk_bytes(ids)
            if data != rebuilt:
                self._found(path, _difference(data, rebuilt), "not the ids of the leaves")
        known = [leaf.id for leaf in leaves if leaf.id]
        if len(set(known)) != len(known):
            self._found("tile/entries", 0, "an id is in the tree twice")

    def _keys(self, leaves: Sequence[_Leaf], state: State) -> None:
        erased = {leaf.erases for leaf in leaves if leaf.erases}
        for number in range(-(-len(leaves) // INDEX_CHUNK_LEAVES)):
            part = leaves[number * INDEX_CHUNK_LEAVES : (number + 1) * INDEX_CHUNK_LEAVES]
            path, notes = keys_path(number), openings_path(number)
            keys = self._read(path)
            if keys is None:
                keys = b""
            elif len(keys) != len(part) * KEY_BYTES:
                self._found(path, min(len(keys), len(part) * KEY_BYTES), "has the wrong length")
            slots = [keys[i : i + KEY_BYTES] for i in range(0, len(keys), KEY_BYTES)]
            for at, (leaf, key) in enumerate(zip(part, slots, strict=False)):
                reason = _key_reason(leaf, key, leaf.id in erased)
                if leaf.key_check and reason:
                    self._found(
                        path, f"offset {at * KEY_BYTES}, leaf {number * INDEX_CHUNK_LEAVES + at}", reason
                    )
            self._openings(notes, part, slots)

    def _openings(self, path: str, part: Sequence[_Leaf], keys: Sequence[bytes]) -> None:
        data = self._read(path)
        if data is None:
            return
        end = 0
        try:
            for at, sealed in enumerate(sealed_notes(data, len(part))):
                end += len(sealed) + 6
                key = keys[at] if at < len(keys) else ERASED
                if key != ERASED and part[at].id and hashlib.sha256(key).hexdigest() == part[at].key_check:
                    unseal(sealed, part[at].id, key)
        except Integrity as e:
            self._found(path, e.details.get("offset", end), e.message)
            return
        if end != len(data):
            self._found(path, end, "bytes after the last opening")

    def _strays(self) -> None:
        for path in sorted(self.root.rglob("*")):
            name = str(path.relative_to(self.root))
            if path.is_dir() or name in self.expected or (name == st.LOCK and path.stat().st_size == 0):
                continue
            self._found(name, 0, "does not belong here")


def _read(leaf: bytes) -> _Leaf:
    try:
        parsed = read_leaf(leaf)
    except msgspec.MsgspecError:
        return _UNKNOWN  # if it is not what was logged, its hash says so
    return _Leaf(parsed.id, parsed.key_check, parsed.erased if isinstance(parsed, Erasure) else "")


def _key_reason(leaf: _Leaf, key: bytes, erased: bool) -> str:
    if key == ERASED:
        return "" if erased else "the key is gone, and no erasure says so"
    if erased:
        return "the key is still there, though its erasure was logged"
    return "" if hashlib.sha256(key).hexdigest() == leaf.key_check else "is not the key of its leaf"


def _difference(a: bytes, b: bytes) -> int:
    """Offset of the first byte in which they differ."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
