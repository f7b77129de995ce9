"""Outside judges: Go's sumdb on notes, proofs and tiles; scitt-cose on COSE."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import cbor2
import pytest
import scitt_cose
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from ledger_worker import make_intent, signers

from allod.clock import SystemClock
from allod.ledger import cose, intent, statement
from allod.ledger.log import Log
from allod.ledger.segment import Entry
from allod.signing import FileSigner, b64

CLOCK = SystemClock()


def entries(count: int) -> list[Entry]:
    made = [make_intent(CLOCK) for _ in range(count)]
    return [Entry(i.id, statement.encode(intent.interrupted(i, CLOCK.now_us())), i.key) for i in made]


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Go program, built offline against the packages that Debian's Go source tree holds."""
    if shutil.which("go") is None:
        pytest.skip("golang-go is not installed")
    goroot = subprocess.run(
        ["go", "env", "GOROOT"], capture_output=True, text=True, check=True
    ).stdout.strip()
    vendor = Path(goroot, "src/cmd/vendor/golang.org/x")
    if not (vendor / "mod/sumdb/tlog").is_dir():
        pytest.skip("this Go installation has no source of sumdb")
    gopath = tmp_path_factory.mktemp("go")
    for package in ("mod/sumdb/note", "mod/sumdb/tlog", "crypto/ed25519"):
        if (vendor / package).is_dir():
            shutil.copytree(vendor / package, gopath / "src/golang.org/x" / package)
    env = os.environ | {"GO111MODULE": "off", "GOPATH": str(gopath), "GOFLAGS": "", "GOPROXY": "off"}
    source = Path(__file__).parent / "ledger_judge.go"
    subprocess.run(
        ["go", "build", "-o", str(gopath / "judge"), str(source)], env=env, check=True, timeout=300
    )
    return gopath / "judge"


@pytest.mark.parametrize(("old", "new"), [(1, 2), (3, 7), (255, 256), (256, 257), (300, 1000), (512, 700)])
def test_go_accepts_our_notes_proofs_and_tiles(judge: Path, tmp_path: Path, old: int, new: int) -> None:
    keys = signers(tmp_path)
    log = Log.open(tmp_path / "ledger", keys, CLOCK)
    log.append(entries(old))
    older = log.checkpoint()
    log.append(entries(new - old))
    files = {
        "old": older,
        "new": log.checkpoint(),
        "proof": log.proof(old - 1).encode().encode(),
        "leaf": log.leaf(old - 1),
        "consistency": "".join(f"{b64(h)}\n" for h in log.consistency(old)).encode(),
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)

    def run() -> subprocess.CompletedProcess[str]:
        paths = [str(tmp_path / name) for name in (*files, "ledger")]
        command = [str(judge), str(keys[0].vkey), *paths]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)

    done = run()
    assert (done.returncode, done.stdout) == (0, f"{new}\n"), done.stderr
    changes = {
        "leaf": ("inclusion", files["leaf"].replace(b'"confidential"', b'"internal"')),
        "new": ("note", files["new"].replace(b"\n%d\n" % new, b"\n%d\n" % (new + 1))),
        "proof": ("inclusion", files["proof"].replace(b"index %d\n" % (old - 1), b"index %d\n" % old)),
    }
    for name, (complaint, content) in changes.items():
        (tmp_path / name).write_bytes(content)
        done = run()
        assert done.returncode == 1
        assert complaint in done.stderr, (name, done.stderr)
        (tmp_path / name).write_bytes(files[name])


def test_scitt_cose_accepts_our_transparent_statement(tmp_path: Path) -> None:
    keys = signers(tmp_path)
    signer = keys[0]
    assert isinstance(signer, FileSigner)
    public = ed25519.Ed25519PublicKey.from_public_bytes(signer.vkey.public)
    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    log = Log.open(tmp_path / "ledger", keys, CLOCK)
    log.append(entries(300))
    for index in (0, 255, 299):
        leaf = log.leaf(index)
        exported = cose.export(signer, leaf, log.proof(index), 1_700_000_000)
        parsed = scitt_cose.parse_signed_statement(exported, public_key_pem=pem)
        assert parsed["signature_verified"] is True
        assert parsed["payload"] == leaf
        assert (parsed["issuer"], parsed["subject"]) == (log.origin, statement.decode(leaf).id)
        (receipt,) = scitt_cose.extract_receipts(exported)
        result = scitt_cose.verify_receipt(receipt, leaf_entry_hex=leaf.hex(), log_public_key_pem=pem)
        assert result.ok, result.errors
        assert (result.tree_size, result.leaf_index, result.issuer) == (300, index, log.origin)
        other = log.leaf(1).hex()
        assert not scitt_cose.verify_receipt(receipt, leaf_entry_hex=other, log_public_key_pem=pem).ok
        outer = cbor2.loads(receipt)
        broken = cbor2.dumps(cbor2.CBORTag(18, [*outer.value[:3], bytes(64)]))
        assert not scitt_cose.verify_receipt(broken, leaf_entry_hex=leaf.hex(), log_public_key_pem=pem).ok
