"""A stranger checks receipts and ledgers: files and public keys, no home, no node."""

import json
import os
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import msgspec
import pytest

import allod
from allod import signing
from allod.clock import ManualClock
from allod.ledger import commitment, statement
from allod.ledger.log import Log
from allod.ledger.segment import Entry
from allod.signing import FileSigner

ORIGIN = "stranger.example/log"
COUNT = 300  # more than one tile


class Evidence:
    """A small ledger, its public keys, and one exported receipt."""

    def __init__(self, folder: Path) -> None:
        clock = ManualClock()
        signers = [FileSigner.generate(ORIGIN, kind) for kind in (signing.ED25519, signing.MLDSA44)]
        self.folder, self.ledger = folder, folder / "ledger"
        log = Log.open(self.ledger, signers, clock)
        log.append([self._entry(clock, n) for n in range(COUNT)])
        self.keys = folder / "ledger.pub"
        self.keys.write_text("".join(f"{s.vkey}\n" for s in signers))
        self.leaf = log.leaf(77)
        proof = log.proof(77)
        self.proof = folder / "receipt.tlog-proof"
        self.proof.write_text(msgspec.structs.replace(proof, extra=self.leaf).encode())
        self.bare = folder / "bare.tlog-proof"
        self.bare.write_text(proof.encode())
        log.close()

    @staticmethod
    def _entry(clock: ManualClock, n: int) -> Entry:
        key = commitment.new_key()
        made = statement.Statement(
            id=commitment.new_receipt_id(clock),
            action="chat", model="small", data_class="confidential", decision="deny", outcome="refused",
            rules=("3.1-own-machines",), organisation="hospital", project="ward",
            origin=ORIGIN, policy="sha256:0",
            endpoint="/v1/chat/completions", status=403, started_us=clock.now_us(),
            ended_us=clock.now_us() + n,
            actor=commitment.commit(key, "actor", b"k"), input=commitment.commit(key, "input", b"q"),
            output=commitment.commit(key, "output", b"a"), input_bytes=1, output_bytes=1,
            key_check=commitment.key_check(key),
        )  # fmt: skip
        return Entry(made.id, statement.encode(made), key)

    def run(self, *words: object, code: int = 0) -> Any:
        env = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(Path(allod.__file__).parents[1]),
            "HOME": "/nonexistent",
        }
        command = [sys.executable, "-m", "allod", *map(str, words), "--json"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=env, check=False)
        assert done.returncode == code, done.stdout + done.stderr
        return json.loads(done.stdout)


@pytest.fixture(scope="module")
def untouched(tmp_path_factory: pytest.TempPathFactory) -> Evidence:
    return Evidence(tmp_path_factory.mktemp("e"))


@pytest.fixture
def evidence(tmp_path: Path) -> Evidence:
    return Evidence(tmp_path)


def test_a_receipt_is_verified_with_the_public_key_alone(untouched: Evidence) -> None:
    said = untouched.run("receipt", "verify", untouched.proof, "--key", untouched.keys)
    assert said["ok"] is True
    assert (said["index"], said["size"]) == (77, COUNT)
    assert said["statement"]["rules"] == ["3.1-own-machines"]
    assert len(said["log_keys"]) == 2
    one_key = untouched.keys.read_text().splitlines()[0]
    assert untouched.run("receipt", "verify", untouched.proof, "--key", one_key)["ok"] is True


def test_for_people_it_says_what_was_shown(untouched: Evidence) -> None:
    command = [
        sys.executable,
        "-m",
        "allod",
        "receipt",
        "verify",
        str(untouched.proof),
        "--key",
        str(untouched.keys),
    ]
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(Path(allod.__file__).parents[1])}
    lines = subprocess.run(command, capture_output=True, text=True, env=env, check=True).stdout.splitlines()
    receipt = json.loads(untouched.leaf)["id"]
    assert lines == [
        f"ok   checkpoint of {ORIGIN} over {COUNT} leaves, signed with Ed25519 and ML-DSA-44",
        f"ok   receipt {receipt} is leaf 77 of it",
        "     it says: 2023-11-14T22:13:20.000Z chat small, confidential: deny, refused",
        "     by the rules: 3.1-own-machines",
    ]


def test_any_change_to_a_receipt_is_an_integrity_failure(evidence: Evidence) -> None:
    text = evidence.proof.read_text()
    extra = next(line for line in text.splitlines() if line.startswith("extra "))
    forged = evidence.leaf.replace(b'"deny"', b'"allow"')
    for changed in (
        text.replace(extra, f"extra {signing.b64(forged)}"),
        text.replace("index 77", "index 78"),
        text.replace(f"\n{COUNT}\n", f"\n{COUNT + 1}\n"),
    ):
        assert changed != text
        evidence.proof.write_text(changed)
        error = evidence.run("receipt", "verify", evidence.proof, "--key", evidence.keys, code=6)["error"]
        assert error["code"].split(".")[0] in {"proof", "note"}


def test_another_logs_key_is_no_proof(evidence: Evidence, tmp_path: Path) -> None:
    other = tmp_path / "other.pub"
    other.write_text(f"{FileSigner.generate(ORIGIN, signing.ED25519).vkey}\n")
    assert (
        evidence.run("receipt", "verify", evidence.proof, "--key", other, code=6)["error"]["code"]
        == "note.unsigned"
    )


@pytest.mark.parametrize(
    ("content", "code", "error"),
    [
        (b"\xd2\x84\x43", 2, "receipt.form"),
        (b"", 2, "receipt.form"),
        (b"c2sp.org/tlog-proof@v1\nindex", 6, "proof.malformed"),
    ],
)
def test_what_is_no_receipt_is_said_to_be_none(
    evidence: Evidence, content: bytes, code: int, error: str
) -> None:
    evidence.proof.write_bytes(content)
    said = evidence.run("receipt", "verify", evidence.proof, "--key", evidence.keys, code=code)
    assert said["error"]["code"] == error


def test_a_proof_without_its_receipt_says_so(untouched: Evidence) -> None:
    said = untouched.run("receipt", "verify", untouched.bare, "--key", untouched.keys, code=2)
    assert said["error"]["code"] == "receipt.no-leaf"


def test_without_a_key_it_asks_for_one(untouched: Evidence) -> None:
    error = untouched.run("receipt", "verify", untouched.proof, code=2)["error"]
    assert error["code"] == "receipt.no-key"
    assert "--key" in error["hint"]


def test_a_ledger_is_verified_and_each_damaged_byte_is_named(evidence: Evidence) -> None:
    said = evidence.run("ledger", "verify", evidence.ledger, "--key", evidence.keys)
    assert (said["ok"], said["size"], said["origin"]) == (True, COUNT, ORIGIN)
    assert evidence.run("ledger", "fsck", evidence.ledger, "--key", evidence.keys)["ok"] is True
    bundle = next((evidence.ledger / "tile/entries").glob("000"))
    data = bytearray(bundle.read_bytes())
    data[5_000] ^= 1
    bundle.write_bytes(bytes(data))
    assert evidence.run("ledger", "verify", evidence.ledger, "--key", evidence.keys, code=6)["error"]["hint"]
    report = evidence.run("ledger", "fsck", evidence.ledger, "--key", evidence.keys, code=6)
    assert report["ok"] is False
    assert any("tile/entries/000" in finding["path"] for finding in report["findings"])


def test_fsck_does_not_run_beside_a_node_that_appends(evidence: Evidence) -> None:
    import fcntl

    with (evidence.ledger / "lock").open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        error = evidence.run("ledger", "fsck", evidence.ledger, "--key", evidence.keys, code=3)["error"]
        assert error["code"] == "ledger.busy"
        assert evidence.run("ledger", "verify", evidence.ledger, "--key", evidence.keys)["ok"] is True


def test_a_witness_of_ones_own(evidence: Evidence, tmp_path: Path) -> None:
    command = [
        sys.executable, "-m", "allod", "ledger", "witness", "--state", str(tmp_path / "w"),
        "--log", str(evidence.keys), "--name", "auditor.example", "--listen", "127.0.0.1:0",
    ]  # fmt: skip
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(Path(allod.__file__).parents[1])}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)
    try:
        assert process.stdout is not None
        assert process.stderr is not None
        key = process.stdout.readline().strip()
        url = process.stderr.readline().split()[2].rstrip(";")
        checkpoint = (evidence.ledger / "checkpoint").read_bytes()
        request = urllib.request.Request(f"{url}/add-checkpoint", b"old 0\n\n" + checkpoint)
        with urllib.request.urlopen(request, timeout=10) as answer:
            cosigned = checkpoint + answer.read()
    finally:
        process.terminate()
        process.wait(10)
        process.stdout.close()  # type: ignore[union-attr]
        process.stderr.close()  # type: ignore[union-attr]
    (evidence.ledger / "checkpoint.cosigned").write_bytes(cosigned)
    said = evidence.run("ledger", "verify", evidence.ledger, "--key", evidence.keys, "--witness", key)
    assert said["witnesses"] == ["auditor.example"]
