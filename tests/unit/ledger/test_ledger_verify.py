"""Offline verification of receipts: what a stranger accepts and what no change gets past."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ledger_records import make_entry, make_log, make_signers

from allod.clock import ManualClock
from allod.errors import Integrity
from allod.ledger import tree
from allod.ledger.log import Log
from allod.ledger.proof import TlogProof
from allod.ledger.verify import ReceiptVerifier


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Log:
    return make_log(tmp_path_factory.mktemp("log"), 300)


def test_a_receipt_verifies_with_one_public_key_and_later_still(log: Log) -> None:
    proof, leaf = log.proof(123).encode(), log.leaf(123)
    assert TlogProof.parse(proof).encode() == proof
    log.append([make_entry(ManualClock(), 0)])
    for keys in (log.vkeys, log.vkeys[:1], log.vkeys[1:]):
        proven = ReceiptVerifier(keys).verify(proof, leaf)
        assert (proven.index, proven.verified.checkpoint.origin) == (123, log.origin)


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_no_flip_passes(log: Log, data: st.DataObject) -> None:
    """In the leaf, the index, the path or the signed text. (An ignored signature line may change.)"""
    whole = log.proof(200).encode().encode()
    signed = len(whole.split("\n— ".encode())[0])
    target = data.draw(st.sampled_from(["proof", "leaf"]))
    content = bytearray(whole if target == "proof" else log.leaf(200))
    at = data.draw(st.integers(0, (signed if target == "proof" else len(content)) - 1))
    content[at] ^= data.draw(st.integers(1, 255))
    verifier = ReceiptVerifier(log.vkeys)
    proof = bytes(content).decode(errors="surrogateescape") if target == "proof" else whole.decode()
    with pytest.raises(Integrity):
        verifier.verify(proof, log.leaf(200) if target == "proof" else bytes(content))


def test_strangers_keys_other_logs_and_too_few_witnesses_are_refused(log: Log, tmp_path: Path) -> None:
    proof, leaf = log.proof(1), log.leaf(1)
    with pytest.raises(Integrity, match=r"note\.unsigned"):
        ReceiptVerifier([make_signers()[0].vkey]).verify(proof, leaf)
    with pytest.raises(Integrity, match=r"witness\.too-few"):
        ReceiptVerifier(log.vkeys, witnesses_needed=1).verify(proof, leaf)
    other = make_log(tmp_path, 300)
    with pytest.raises(Integrity, match=r"proof\.wrong"):
        ReceiptVerifier(log.vkeys).verify(proof, other.leaf(1))
    foreign = make_entry(ManualClock(), 1)._replace(leaf=b'{"v":"something else"}')
    other.append([foreign])
    later = make_entry(ManualClock(), 2)
    later = later._replace(leaf=later.leaf.replace(b"allod-receipt/1", b"allod-receipt/2"))
    other.append([later])
    for index, leaf in ((300, foreign.leaf), (301, later.leaf)):
        with pytest.raises(Integrity, match=r"receipt\.malformed"):
            ReceiptVerifier(other.vkeys).verify(other.proof(index), leaf)


@settings(max_examples=200, deadline=None)
@given(size=st.integers(1, 600), data=st.data())
def test_proofs_of_the_wrong_shape_lead_nowhere(size: int, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, size - 1))
    path = tuple(data.draw(st.lists(st.just(bytes(32)), max_size=12)))
    root = tree.root_from_inclusion(bytes(32), index, size, path)
    depth = 0
    lo, hi = 0, size
    while hi - lo > 1:
        middle = lo + tree.split(hi - lo)
        lo, hi = (lo, middle) if index < middle else (middle, hi)
        depth += 1
    assert (root is None) == (len(path) != depth)
