"""Questions to the log, answered as the faces show them. Each function runs alone with the log."""

from __future__ import annotations

import base64
from pathlib import Path

import msgspec

from allod import limits
from allod.api.ports import Check, ExchangeView, ReceiptFormat, ReceiptView, Verification
from allod.errors import AllodError, NotFound
from allod.ledger import cose
from allod.ledger.erasure import Erasure, read_leaf
from allod.ledger.log import Log
from allod.ledger.proof import TlogProof
from allod.ledger.statement import Statement
from allod.ledger.verify import ReceiptVerifier
from allod.signing import ED25519, FileSigner, VKey


def latest(
    log: Log, organisation: str | None, project: str | None, limit: int, before: int | None
) -> list[ExchangeView]:
    """The newest exchanges of an organisation or project (None: all), among a bounded number of leaves."""
    found: list[ExchangeView] = []
    for index, leaf in log.latest(limits.EXCHANGES_SCANNED_MAX, before):
        statement = read_leaf(leaf)
        if isinstance(statement, Erasure):
            continue
        if organisation not in (None, statement.organisation) or project not in (None, statement.project):
            continue
        found.append(ExchangeView(index=index, statement=statement))
        if len(found) == limit:
            break
    return found


def receipt(log: Log, receipt_id: str) -> ReceiptView:
    """Raises NotFound `receipt.unknown`. The proof text carries the leaf, so that it verifies by itself."""
    index, leaf, statement = _find(log, receipt_id)
    proof = msgspec.structs.replace(log.proof(index), extra=leaf)
    return ReceiptView(
        index=index,
        statement=statement,
        leaf=leaf,
        proof=proof.encode(),
        checkpoint=proof.checkpoint.decode(),
    )


def receipt_file(log: Log, signer: FileSigner, receipt_id: str, form: ReceiptFormat, time_s: int) -> bytes:
    """A receipt to carry away: C2SP proof text, SCITT transparent statement (COSE), or JSON of all of it."""
    view = receipt(log, receipt_id)
    if form == "tlog-proof":
        return view.proof.encode()
    if form == "cose":
        return cose.export(signer, view.leaf, log.proof(view.index), time_s)
    return msgspec.json.format(
        msgspec.json.encode(
            {
                "statement": view.statement,
                "leaf": base64.b64encode(view.leaf).decode(),
                "index": view.index,
                "proof": view.proof,
                "keys": [str(k) for k in log.vkeys],
            }
        ),
        indent=2,
    )


def verify(log: Log, receipt_id: str) -> Verification:
    """What a stranger would check, step by step, over the same files and with the public keys alone."""
    view = receipt(log, receipt_id)
    try:
        proven = ReceiptVerifier(log.vkeys).verify(TlogProof.parse(view.proof), view.leaf)
    except AllodError as e:
        return Verification(ok=False, checks=(Check(name=e.code, ok=False, detail=e.message, hint=e.hint),))
    checkpoint = proven.verified.checkpoint
    signed = ", ".join(f"{_algorithm(k)}" for k in proven.verified.log)
    checks = (
        Check(
            name="checkpoint signature",
            ok=True,
            detail=f"{checkpoint.size} receipts, signed by {checkpoint.origin} with {signed}",
        ),
        Check(
            name="inclusion",
            ok=True,
            detail=f"receipt is number {proven.index} under root {checkpoint.root.hex()[:16]}…",
        ),
        Check(name="statement", ok=True, detail=f"{view.statement.v}, {len(view.leaf)} bytes, as logged"),
        _opening(log, view),
    )
    return Verification(ok=all(c.ok for c in checks), checks=checks)


def ledger_file(root: Path, path: str) -> bytes:
    """A tile or bundle by its C2SP path, whose form the caller has checked. NotFound `ledger.no-file`."""
    try:
        return (root / path).read_bytes()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as e:
        raise NotFound("ledger.no-file", f"the ledger has no {path}") from e


def _algorithm(key: VKey) -> str:
    return "Ed25519" if key.type == ED25519 else "ML-DSA-44"


def _opening(log: Log, view: ReceiptView) -> Check:
    """Whether the record key is there; that it is gone is an answer too (erasure), not a failure."""
    try:
        log.opening(view.statement.id)
    except NotFound:
        return Check(
            name="record key", ok=True, detail="destroyed: the commitments can no longer be opened by anyone"
        )
    except AllodError as e:
        return Check(name="record key", ok=False, detail=e.message, hint=e.hint)
    return Check(name="record key", ok=True, detail="kept by this node, outside the ledger")


def _find(log: Log, receipt_id: str) -> tuple[int, bytes, Statement]:
    index = log.find(receipt_id)
    if index is None:
        raise NotFound("receipt.unknown", f"the ledger has no receipt {receipt_id[:40]!r}")
    leaf = log.leaf(index)
    statement = read_leaf(leaf)
    if isinstance(statement, Erasure):
        raise NotFound(
            "receipt.is-erasure", f"{receipt_id} records that the key of {statement.erased} was destroyed"
        )
    return index, leaf, statement
