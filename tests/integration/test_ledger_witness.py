"""The witness as a process of its own, over HTTP: cosigns growth, remembers across kill -9, refuses forks."""

from __future__ import annotations

import http.client
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from ledger_worker import make_intent, signers

from allod.clock import SystemClock
from allod.errors import Integrity
from allod.ledger import intent, statement
from allod.ledger.log import Log
from allod.ledger.proof import TlogProof
from allod.ledger.segment import Entry
from allod.ledger.verify import ReceiptVerifier
from allod.ledger.witness import Request, cosign
from allod.signing import VKey, b64, parse_note, verify_note

CLOCK = SystemClock()


def entries(count: int) -> list[Entry]:
    made = [make_intent(CLOCK) for _ in range(count)]
    return [Entry(i.id, statement.encode(intent.interrupted(i, CLOCK.now_us())), i.key) for i in made]


class Running:
    """A witness process on a free port."""

    def __init__(self, home: Path, logs: list[VKey]) -> None:
        argv = ["--state", str(home / "state"), "--key", str(home / "witness.key"), "--listen", "127.0.0.1:0"]
        argv += [part for key in logs for part in ("--log", str(key))]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "allod.ledger.witness", *argv], stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout
        self.vkey = VKey.parse(self.process.stdout.readline().strip())
        self.port = int(self.process.stdout.readline().rpartition(":")[2])

    def post(self, body: bytes, path: str = "/add-checkpoint") -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("POST", path, body)
            response = connection.getresponse()
            self.content_type = response.headers["Content-Type"]
            return response.status, response.read()
        finally:
            connection.close()

    def kill(self) -> None:
        if self.process.poll() is not None:
            return
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()
        assert self.process.stdout
        self.process.stdout.close()


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log.open(tmp_path / "ledger", signers(tmp_path), CLOCK)


@pytest.fixture
def witness(tmp_path: Path, log: Log) -> Iterator[Running]:
    (tmp_path / "w").mkdir()
    running = Running(tmp_path / "w", list(log.vkeys))
    yield running
    running.kill()


def test_growth_is_cosigned_and_shows_in_the_receipt(log: Log, witness: Running) -> None:
    old = 0
    for count in (1, 300, 5):
        log.append(entries(count))
        note = cosign(witness.post, log.checkpoint(), [witness.vkey], old, log.consistency)
        log.add_cosignatures(note, [witness.vkey])
        old = log.size
    log.append(entries(2))
    proof = TlogProof.parse(log.proof(17).encode())
    strict = ReceiptVerifier(log.vkeys, [witness.vkey], witnesses_needed=1)
    assert strict.verify(proof.encode(), log.leaf(17)).verified.witnesses == (witness.vkey,)
    with pytest.raises(Integrity, match=r"witness\.too-few"):
        strict.verify(log.proof(307).encode(), log.leaf(307))
    assert verify_note(parse_note(proof.checkpoint), [witness.vkey])


def test_a_client_that_forgot_is_told_the_size(log: Log, witness: Running) -> None:
    log.append(entries(10))
    cosign(witness.post, log.checkpoint(), [witness.vkey], 0, log.consistency)
    log.append(entries(10))
    assert witness.post(Request(0, (), log.checkpoint()).encode()) == (409, b"10\n")
    assert witness.content_type == "text/x.tlog.size"
    assert cosign(witness.post, log.checkpoint(), [witness.vkey], 0, log.consistency)


def test_a_fork_is_refused_even_after_a_kill(tmp_path: Path, log: Log, witness: Running) -> None:
    log.append(entries(10))
    cosign(witness.post, log.checkpoint(), [witness.vkey], 0, log.consistency)
    witness.kill()
    again = Running(tmp_path / "w", list(log.vkeys))
    try:
        assert again.vkey == witness.vkey
        fork = Log.open(tmp_path / "fork", signers(tmp_path), CLOCK)
        fork.append(entries(10))
        assert again.post(Request(10, (), fork.checkpoint()).encode())[0] == 409
        assert again.post(Request(0, (), fork.checkpoint()).encode()) == (409, b"10\n")
        fork.append(entries(10))
        assert again.post(Request(10, fork.consistency(10), fork.checkpoint()).encode())[0] == 422
        with pytest.raises(Integrity, match=r"witness\.refused"):
            cosign(again.post, fork.checkpoint(), [again.vkey], 10, fork.consistency)
        log.append(entries(1))
        assert cosign(again.post, log.checkpoint(), [again.vkey], 10, log.consistency)
    finally:
        again.kill()


def test_a_cosignature_of_another_tree_is_not_kept(tmp_path: Path, log: Log, witness: Running) -> None:
    """Signed by our own keys and cosigned, but of a tree that is not ours: no receipt may lead to it."""
    log.append(entries(10))
    fork = Log.open(tmp_path / "fork", signers(tmp_path), CLOCK)
    fork.append(entries(10))
    note = cosign(witness.post, fork.checkpoint(), [witness.vkey], 0, fork.consistency)
    with pytest.raises(Integrity, match=r"witness\.other-tree"):
        log.add_cosignatures(note, [witness.vkey])
    with pytest.raises(Integrity, match=r"witness\.unsigned"):
        log.add_cosignatures(log.checkpoint(), [witness.vkey])
    assert log.cosigned() is None


def test_bad_requests_get_the_statuses_of_the_specification(
    tmp_path: Path, log: Log, witness: Running
) -> None:
    log.append(entries(4))
    note = log.checkpoint()
    (tmp_path / "k").mkdir()
    stranger = Log.open(tmp_path / "s", signers(tmp_path / "k"), CLOCK)
    unsigned = stranger.checkpoint()
    assert witness.post(b"nonsense")[0] == 400
    assert witness.post(b"")[0] == 400
    assert witness.post(Request(5, (), note).encode())[0] == 400
    assert (
        witness.post(Request(0, (), note.replace(log.origin.encode(), b"other.example")).encode())[0] == 404
    )
    assert witness.post(Request(0, (), unsigned).encode())[0] == 403
    assert witness.post(Request(0, (bytes(32),), note).encode())[0] == 422
    assert witness.post(b"old 00\n\n" + note)[0] == 400
    assert witness.post(b"old 0\n" + f"{b64(bytes(32))}\n".encode() * 64 + b"\n" + note)[0] == 400
    assert witness.post(Request(0, (), note).encode(), "/other")[0] == 404
    assert witness.post(b"x" * 300_000)[0] == 413
    assert witness.post(Request(0, (), note).encode())[0] == 200
