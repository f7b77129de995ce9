"""The log: an append-only Merkle tree in C2SP files, fed from the spools, each record exactly once.

One process appends. A batch is on disk (bundles, tiles, keys) before the state that makes it count replaces
the old one; the checkpoint follows. Killed anywhere, the next `Log.open` finds either all of a batch or none
of it, removes what does not count and signs what was not yet signed. Two different trees of one size are
never signed, because only committed leaves are.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from allod.clock import Clock
from allod.errors import Integrity, NotFound, NotReady, Usage
from allod.ledger import checkpoint as cp
from allod.ledger import erasure, files
from allod.ledger import store as st
from allod.ledger.checkpoint import Checkpoint
from allod.ledger.commitment import commit, key_check, new_key, new_receipt_id
from allod.ledger.edge import Edge
from allod.ledger.erasure import Erasure
from allod.ledger.ids import Ids
from allod.ledger.keys import KeyStore
from allod.ledger.proof import Prover, TlogProof
from allod.ledger.segment import Entry
from allod.ledger.statement import Statement
from allod.ledger.store import State, Store
from allod.ledger.tile import ENTRIES, WIDTH, Tile
from allod.ledger.wipe import wipe
from allod.limits import INDEX_CHUNK_LEAVES, LEAF_BYTES_MAX
from allod.signing import Signer, VKey, parse_note, sign_note


class Opening(NamedTuple):
    """What opens a record's commitments: its key, and the private note stored beside it (may be empty)."""

    key: bytes
    note: bytes


class Log:
    """Opened by `Log.open`; not thread-safe. `size`, `cursors` and `origin` are what is committed."""

    _state: State
    _edge: Edge
    _ids: Ids
    _keys: KeyStore
    _checkpoint: bytes
    _cosigned: bytes | None

    def __init__(self, root: Path, lock_fd: int, signers: Sequence[Signer], clock: Clock) -> None:
        self.root = root
        self.origin = signers[0].vkey.name
        self.vkeys = tuple(s.vkey for s in signers)
        self.spool: Path | None = None  # where workers wrote keys first: an erasure goes there as well
        self._lock_fd = lock_fd
        self._signers = signers
        self._clock = clock
        self._store = Store(root)
        self._load()

    @classmethod
    def open(cls, root: Path, signers: Sequence[Signer], clock: Clock) -> Log:
        """Opens or creates the ledger in `root`. The signers share one name: the log's origin.

        Raises NotReady `ledger.busy` if another process has it open; Integrity if files are damaged, if the
        folder belongs to another origin, or if it is older than its own checkpoint.
        """
        if not signers or len({s.vkey.name for s in signers}) != 1:
            raise Usage("ledger.signers", "a log needs signers, all with the log's origin as their name")
        root.mkdir(mode=0o755, parents=True, exist_ok=True)
        lock_fd = os.open(root / st.LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return cls(root, lock_fd, signers, clock)
        except BlockingIOError as e:
            os.close(lock_fd)
            raise NotReady("ledger.busy", "another process has the ledger open") from e
        except BaseException:
            os.close(lock_fd)
            raise

    def close(self) -> None:
        os.close(self._lock_fd)

    @property
    def size(self) -> int:
        return self._state.size

    @property
    def cursors(self) -> Mapping[str, int]:
        """Spool folder -> position up to which its records are in the tree."""
        return self._state.cursors

    def append(self, entries: Sequence[Entry], cursors: Mapping[str, int] | None = None) -> int:
        """Puts entries into the tree, durably, and replaces the cursors. Returns the new size.

        An entry whose id is in the tree already is dropped: a record is in the tree once. Raises NotReady
        `ledger.no-space` or `ledger.io`; then nothing of the batch counts and it can be tried again.
        """
        return self._append(entries, dict(self.cursors if cursors is None else cursors), ())

    def find(self, receipt_id: str) -> int | None:
        """The leaf index of a receipt, or None."""
        return self._ids.find(receipt_id)

    def leaf(self, index: int) -> bytes:
        """The bytes that were logged. Raises NotFound beyond the end."""
        if not 0 <= index < self.size:
            raise NotFound("ledger.no-leaf", f"the ledger has no leaf {index}")
        return self._store.leaf(index, self.size)

    def latest(self, limit: int, before: int | None = None) -> Iterator[tuple[int, bytes]]:
        """Up to `limit` (index, leaf) pairs, newest first, with index < `before`. Both leaf kinds."""
        at = self.size if before is None else max(0, min(before, self.size))
        stop = max(0, at - limit)
        while at > stop:
            number = (at - 1) // WIDTH
            leaves = self._store.leaves(Tile(ENTRIES, number, min(WIDTH, self.size - number * WIDTH)))
            while at > max(stop, number * WIDTH):
                at -= 1
                yield at, leaves[at - number * WIDTH]

    def checkpoint(self) -> bytes:
        """The signed note of the present tree."""
        return self._checkpoint

    def cosigned(self) -> bytes | None:
        """The latest note that witnesses cosigned, if there is one."""
        return self._cosigned

    def proof(self, index: int) -> TlogProof:
        """Inclusion of leaf `index`, under the cosigned checkpoint where that has it."""
        for note in (self._cosigned, self._checkpoint):
            if note is not None:
                checkpoint = Checkpoint.parse(parse_note(note).text)
                if index < checkpoint.size:
                    path = Prover(self._store, checkpoint.size).inclusion(index)
                    return TlogProof(index, path, note)
        raise NotFound("ledger.no-leaf", f"the ledger has no leaf {index}")

    def consistency(self, old_size: int) -> tuple[bytes, ...]:
        """The proof that the tree of `old_size` is a prefix of the present one."""
        return Prover(self._store, self.size).consistency(old_size)

    def add_cosignatures(self, note: bytes, witnesses: Sequence[VKey]) -> None:
        """Keeps a checkpoint of ours that witnesses cosigned. Raises Integrity if it is not that."""
        verified = cp.verify(note, self.vkeys, tuple(witnesses))
        checkpoint = verified.checkpoint
        if not verified.witnesses:
            raise Integrity("witness.unsigned", "no trusted witness cosigned this checkpoint")
        if checkpoint.size > self.size or Prover(self._store, checkpoint.size).root() != checkpoint.root:
            raise Integrity("witness.other-tree", "the cosigned checkpoint is not of this tree")
        files.replace(self.root / st.COSIGNED, note)
        self._cosigned = note

    def opening(self, receipt_id: str) -> Opening:
        """Raises NotFound for an unknown id (`receipt.unknown`) and for an erased key (`receipt.erased`)."""
        index = self._index(receipt_id)
        key = self._keys.key(index)
        if key is None:
            raise NotFound("receipt.erased", f"the key of {receipt_id} was destroyed")
        return Opening(key, self._keys.opening(index, receipt_id, key))

    def erase(self, receipt_id: str, *, by: str) -> str:
        """Destroys the record's key and logs that it was done. Returns the id of the erasure leaf.

        `by` (an id of who asked) enters the leaf as a commitment. Raises NotFound as `opening` does.
        """
        index = self._index(receipt_id)
        leaf = erasure.read_leaf(self.leaf(index))
        known = self._keys.key(index)
        if not isinstance(leaf, Statement) or known is None:
            raise NotFound("receipt.erased", f"{receipt_id} has no key that could be destroyed")
        if self.spool is not None:  # first: killed after it, the key is still here and asking again ends it
            wipe(self.spool, known)
        key = new_key()
        record = Erasure(
            actor=commit(key, "actor", by.encode()),
            erased=receipt_id,
            ended_us=self._clock.now_us(),
            id=new_receipt_id(self._clock),
            key_check=key_check(key),
            organisation=leaf.organisation,
            origin=self.origin,
            project=leaf.project,
        )
        entry = Entry(record.id, erasure.encode(record), key)
        self._append([entry], dict(self.cursors), (index,))
        try:
            self._keys.destroy(index)
        except OSError as e:  # the commit remembers it: tried again with the next one
            raise files.not_ready(e) from e
        return record.id

    def _index(self, receipt_id: str) -> int:
        index = self.find(receipt_id)
        if index is None:
            raise NotFound("receipt.unknown", f"the ledger has no receipt {receipt_id[:40]!r}")
        return index

    def _append(self, entries: Sequence[Entry], cursors: dict[str, int], erasing: tuple[int, ...]) -> int:
        first: dict[str, Entry] = {}
        for entry in entries:
            if self._ids.find(entry.id) is None:
                first.setdefault(entry.id, entry)
        fresh = list(first.values())
        for entry in fresh:
            if len(entry.leaf) > LEAF_BYTES_MAX:
                raise Usage("ledger.leaf-too-large", f"a leaf has at most {LEAF_BYTES_MAX} bytes")
        if not fresh and cursors == self.cursors:
            return self.size
        try:
            for index in self._state.erasing:
                self._keys.destroy(index)
            self._commit(fresh, cursors, erasing)
        except OSError as e:
            self._load()  # whatever became of the batch, the disk knows
            raise files.not_ready(e) from e
        return self.size

    def _commit(self, fresh: list[Entry], cursors: dict[str, int], erasing: tuple[int, ...]) -> None:
        ids = [e.id for e in fresh]
        edge = self._edge.copy()
        tiles = edge.append(e.leaf for e in fresh)
        chunks = self._ids.full_chunks(ids)
        files.write_all(self.root, [*((t.path, data) for t, data in tiles.items()), *chunks])
        mark = self._keys.write(self.size, fresh)
        root = edge.root() if fresh else bytes.fromhex(self._state.root)
        state = State(cursors=cursors, erasing=erasing, origin=self.origin, root=root.hex(), size=edge.size)
        files.replace(self.root / st.STATE, st.encode_state(state))
        self._edge, self._state = edge, state
        self._ids.commit(ids, chunks)
        self._keys.commit(mark)
        if fresh:
            self._sign()
            for tile in tiles:
                if tile.width == WIDTH:
                    self._store.drop_partials(tile)

    def _load(self) -> None:
        state = self._store.state()
        if state is None:
            if any((self.root / name).exists() for name in (st.CHECKPOINT, "tile/0")):
                raise Integrity("ledger.damaged", f"{st.STATE} is missing beside a tree")
            state = State(origin=self.origin, root=Edge.empty().root().hex(), size=0)
            files.replace(self.root / st.STATE, st.encode_state(state))
        if state.origin != self.origin:
            raise Integrity(
                "ledger.other-origin", f"this ledger belongs to {state.origin!r}, not {self.origin!r}"
            )
        self._state = state
        self._store.trim(state.size)
        vkeys = "".join(f"{k}\n" for k in self.vkeys).encode()
        if not (self.root / st.VKEYS).exists() or (self.root / st.VKEYS).read_bytes() != vkeys:
            files.replace(self.root / st.VKEYS, vkeys)
        self._edge = self._store.edge(state.size)
        if self._edge.root().hex() != state.root:
            raise Integrity("ledger.damaged", "the tiles do not lead to the root", hint="allod ledger fsck")
        self._ids = Ids(self.root, state.size, self._tail_ids())
        for path in self._ids.leftovers():
            path.unlink()
        self._keys = KeyStore(self.root, state.size)
        for index in state.erasing:
            self._keys.destroy(index)
        self._load_notes()

    def _load_notes(self) -> None:
        cosigned = self.root / st.COSIGNED
        self._cosigned = cosigned.read_bytes() if cosigned.exists() else None
        path = self.root / st.CHECKPOINT
        if path.exists():
            note = path.read_bytes()
            signed = cp.verify(note, self.vkeys).checkpoint
            if signed.size > self.size:
                raise Integrity(
                    "ledger.rolled-back",
                    f"the checkpoint has {signed.size} leaves, the tree only {self.size}",
                    hint="the folder was restored from an older copy; continue under a new origin",
                )
            if signed.size == self.size:
                if signed.root.hex() != self._state.root:
                    raise Integrity("ledger.forked", "the checkpoint is of another tree of the same size")
                self._checkpoint = note
                return
        self._sign()

    def _sign(self) -> None:
        text = Checkpoint(self.origin, self.size, bytes.fromhex(self._state.root)).text()
        note = sign_note(text, self._signers, self._clock.now_us() // 1_000_000).encode()
        files.replace(self.root / st.CHECKPOINT, note)
        self._checkpoint = note

    def _tail_ids(self) -> list[str]:
        first = self.size - self.size % INDEX_CHUNK_LEAVES
        return [
            erasure.leaf_id(leaf)
            for number in range(first // WIDTH, -(-self.size // WIDTH))
            for leaf in self._store.leaves(Tile(ENTRIES, number, min(WIDTH, self.size - number * WIDTH)))[
                : self.size - number * WIDTH
            ]
        ]
