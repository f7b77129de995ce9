"""Offline verification: receipts and whole ledgers, with nothing but files and the log's public keys."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import msgspec

from allod.errors import Integrity
from allod.ledger import checkpoint as cp
from allod.ledger import tree
from allod.ledger.checkpoint import Verified
from allod.ledger.commitment import Label, commit, key_check
from allod.ledger.erasure import Erasure, read_leaf
from allod.ledger.proof import TlogProof
from allod.ledger.statement import Statement
from allod.signing import VKey

_NOTES_KEPT = 64


class Proven(msgspec.Struct, frozen=True):
    """What a proof established: this leaf is leaf `index` of the log named in `checkpoint`."""

    leaf: Statement | Erasure
    index: int
    verified: Verified


class ReceiptVerifier:
    """Verifies `.tlog-proof` texts under fixed keys. Remembers the latest checkpoints."""

    def __init__(
        self, log: Sequence[VKey], witnesses: Sequence[VKey] = (), *, witnesses_needed: int = 0
    ) -> None:
        self._log = tuple(log)
        self._witnesses = tuple(witnesses)
        self._needed = witnesses_needed
        self._notes: OrderedDict[bytes, Verified] = OrderedDict()

    def verify(self, proof: str | TlogProof, leaf: bytes) -> Proven:
        """Raises Integrity: `proof.malformed`, `note.*`, `checkpoint.*`, `proof.wrong` (leads to another
        root), `witness.too-few`, `receipt.malformed` (in the log, but no receipt), `receipt.other-origin`.
        """
        parsed = TlogProof.parse(proof) if isinstance(proof, str) else proof
        verified = self._note(parsed.checkpoint)
        checkpoint = verified.checkpoint
        root = tree.root_from_inclusion(tree.leaf_hash(leaf), parsed.index, checkpoint.size, parsed.path)
        if root != checkpoint.root:
            raise Integrity(
                "proof.wrong", "the receipt or its proof was changed: they do not lead to the root"
            )
        try:
            statement = read_leaf(leaf)
        except msgspec.MsgspecError as e:
            raise Integrity("receipt.malformed", "the logged bytes are no receipt of a known version") from e
        if statement.origin != checkpoint.origin:
            raise Integrity("receipt.other-origin", f"the receipt names {statement.origin!r} as its log")
        return Proven(statement, parsed.index, verified)

    def _note(self, data: bytes) -> Verified:
        verified = self._notes.get(data)
        if verified is None:
            verified = cp.verify(data, self._log, self._witnesses)
            if len(verified.witnesses) < self._needed:
                have = len(verified.witnesses)
                raise Integrity(
                    "witness.too-few", f"{have} of {self._needed} witnesses cosigned the checkpoint"
                )
            self._notes[data] = verified
            if len(self._notes) > _NOTES_KEPT:
                self._notes.popitem(last=False)
        return verified


def opens(leaf: Statement, key: bytes, label: Label, data: bytes) -> bool:
    """Whether `data` is what the receipt committed to. Raises Integrity `receipt.other-key`."""
    if key_check(key) != leaf.key_check:
        raise Integrity("receipt.other-key", "this is not the key of this receipt")
    committed = {"input": leaf.input, "output": leaf.output, "actor": leaf.actor}[label]
    return commit(key, label, data) == committed
