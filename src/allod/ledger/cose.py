"""The same receipt as COSE: an RFC 9943 transparent statement with an RFC 9942 inclusion receipt.

    statement   COSE_Sign1, payload = the leaf bytes, issuer = the log's origin, subject = the receipt id
    receipt     COSE_Sign1 over the (detached) Merkle root, vds 1 (RFC9162_SHA256), one inclusion proof

Both are signed with the log's Ed25519 key; COSE's Sig_structure keeps them apart from signed notes. The entry
that is in the tree is the leaf itself, not the COSE envelope around it, so one tree serves both formats.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import cbor2

from allod.errors import Usage
from allod.ledger.checkpoint import Checkpoint
from allod.ledger.erasure import leaf_id
from allod.ledger.proof import TlogProof
from allod.signing import ED25519, VKey, parse_note

CONTENT_TYPE = "application/vnd.allod.receipt+json"

_SIGN1 = 18  # CBOR tag, RFC 9052 §2
_ALG, _CONTENT_TYPE, _KID, _CWT_CLAIMS = 1, 3, 4, 15
_EDDSA = -8  # RFC 9053; -19 (RFC 9864) names the curve, but verifiers in the field know -8
_VDS, _VDP, _RECEIPTS = 395, 396, 394
_RFC9162_SHA256 = 1
_INCLUSION = -1
_ISS, _SUB, _IAT = 1, 2, 6


class RawSigner(Protocol):
    """An Ed25519 signer of arbitrary bytes; `signing.FileSigner` is one."""

    @property
    def vkey(self) -> VKey: ...
    def sign_raw(self, message: bytes) -> bytes: ...


def export(signer: RawSigner, leaf: bytes, proof: TlogProof, time_s: int) -> bytes:
    """The transparent statement for a leaf, from the proof that `Log.proof` gave. `time_s` is UTC seconds."""
    checkpoint = Checkpoint.parse(parse_note(proof.checkpoint).text)
    made = receipt(signer, leaf, index=proof.index, path=proof.path, checkpoint=checkpoint, time_s=time_s)
    return transparent_statement(signer, leaf, (made,))


def receipt(
    signer: RawSigner,
    leaf: bytes,
    *,
    index: int,
    path: tuple[bytes, ...],
    checkpoint: Checkpoint,
    time_s: int,
) -> bytes:
    """The COSE receipt alone: `path` leads from leaf `index` to the root of `checkpoint`."""
    claims = {_ISS: signer.vkey.name, _SUB: leaf_id(leaf), _IAT: time_s}
    protected = {_VDS: _RFC9162_SHA256, _CWT_CLAIMS: claims, _KID: signer.vkey.key_id}
    proof = cbor2.dumps([checkpoint.size, index, list(path)])
    return _sign1(signer, protected, {_VDP: {_INCLUSION: [proof]}}, checkpoint.root, detached=True)


def transparent_statement(signer: RawSigner, leaf: bytes, receipts: tuple[bytes, ...]) -> bytes:
    """The signed statement with its receipts attached (label 394)."""
    claims = {_ISS: signer.vkey.name, _SUB: leaf_id(leaf)}
    protected = {_CONTENT_TYPE: CONTENT_TYPE, _CWT_CLAIMS: claims, _KID: signer.vkey.key_id}
    return _sign1(signer, protected, {_RECEIPTS: list(receipts)}, leaf, detached=False)


def _sign1(
    signer: RawSigner,
    protected: Mapping[int, Any],
    unprotected: Mapping[int, Any],
    payload: bytes,
    *,
    detached: bool,
) -> bytes:
    if signer.vkey.type != ED25519:
        raise Usage("cose.key", "COSE receipts are signed with the log's Ed25519 key")
    header = cbor2.dumps({_ALG: _EDDSA, **protected})
    signature = signer.sign_raw(cbor2.dumps(["Signature1", header, b"", payload]))
    return cbor2.dumps(
        cbor2.CBORTag(_SIGN1, [header, dict(unprotected), None if detached else payload, signature])
    )
