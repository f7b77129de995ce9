"""Model signatures with the OpenSSF tool as judge: it accepts ours, we accept its, both refuse the same."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import jsonschema_rs
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import NameOID

from allod.errors import AllodError, Integrity, Unprocessable, Usage
from allod.models import oms, oms_format, trust

ORGANISATION = "org-model"
VECTORS = Path(__file__).parents[3] / "shared" / "data" / "oms"
needs_vectors = pytest.mark.skipif(
    not VECTORS.is_dir(), reason="the OMS test vectors are not on this machine"
)


def _judge(*words: str | Path) -> subprocess.CompletedProcess[str]:
    """The tool of github.com/sigstore/model-transparency, as anybody would run it."""
    command = [sys.executable, "-m", "model_signing", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "models" / ORGANISATION
    made.mkdir(parents=True)
    (made / "model.json").write_text(json.dumps({"name": ORGANISATION}))
    (made / "weights.safetensors").write_bytes(bytes(range(256)) * 64)
    (made / "tokenizer.json").write_text("{}")
    return made


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    made = tmp_path / "keys"
    made.mkdir()
    return made


@pytest.fixture
def store(tmp_path: Path, keys: Path) -> Path:
    made = tmp_path / "trust"
    trust.make_organisation(keys, made)
    return made


@pytest.fixture
def key(keys: Path, store: Path) -> Path:
    return trust.organisation_key(keys)


def _code(act: Callable[[], object]) -> str:
    with pytest.raises(AllodError) as caught:
        act()
    return caught.value.code


# --- both ways ----------------------------------------------------------------------------------------------


def test_the_outside_tool_accepts_our_signature_and_the_schemas_do(
    folder: Path, key: Path, store: Path
) -> None:
    signature = oms.sign_folder(folder, key)
    said = _judge(
        "verify", "key", folder, "--signature", signature, "--public_key", store / "organisation.pem"
    )
    assert said.returncode == 0, said.stdout + said.stderr

    signed = oms.verify_folder(folder, trust.load(store))
    assert (signed.who, signed.method) == ("organisation", "key")
    assert set(signed.files) == {"model.json", "weights.safetensors", "tokenizer.json"}

    (folder / "weights.safetensors").write_bytes(b"\0" * 16384)
    said = _judge(
        "verify", "key", folder, "--signature", signature, "--public_key", store / "organisation.pem"
    )
    assert said.returncode != 0


@needs_vectors
def test_our_signature_is_valid_under_the_published_schemas(folder: Path, key: Path) -> None:
    bundle = json.loads(oms.sign_folder(folder, key).read_bytes())
    schemas = [json.loads(p.read_text()) for p in VECTORS.glob("*.schema.json")]
    registry = jsonschema_rs.Registry([(s["$id"], s) for s in schemas])
    of = {s["$id"].split("/")[3]: s for s in schemas}
    payload = json.loads(base64.b64decode(bundle["dsseEnvelope"]["payload"]))
    for name, value in (("bundle", bundle), ("statement", payload), ("predicate", payload["predicate"])):
        jsonschema_rs.validator_for(of[name], registry=registry).validate(value)


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()], ids=lambda c: c.name)
def test_we_accept_what_the_outside_tool_signs(
    folder: Path, store: Path, tmp_path: Path, curve: ec.EllipticCurve
) -> None:
    private, public = _pair(tmp_path, ec.generate_private_key(curve))
    said = _judge("sign", "key", folder, "--signature", folder / "model.sig", "--private_key", private)
    assert said.returncode == 0, said.stdout + said.stderr

    assert _code(lambda: oms.verify_folder(folder, trust.load(store))) == "model.key-unknown"
    trust.add(store, "maker", public.read_bytes(), ("org-*",))
    assert oms.verify_folder(folder, trust.load(store)).who == "maker"


def test_certificates_both_ways_and_only_from_the_authority_that_is_trusted(
    folder: Path, store: Path, tmp_path: Path
) -> None:
    root, leaf_key, leaf = _authority(tmp_path, "ours")
    other, _, _ = _authority(tmp_path, "other")
    said = _judge(
        "sign", "certificate", folder, "--signature", folder / "model.sig",
        "--private_key", leaf_key, "--signing_certificate", leaf, "--certificate_chain", root,
    )  # fmt: skip
    assert said.returncode == 0, said.stdout + said.stderr
    trust.add(store, "other", other.read_bytes(), ("*",))
    assert _code(lambda: oms.verify_folder(folder, trust.load(store))) == "model.key-unknown"

    trust.add(store, "ours", root.read_bytes(), ("*",))
    signed = oms.verify_folder(folder, trust.load(store))
    assert (signed.who, signed.method) == ("ours", "certificate")

    signature = oms.sign_folder(folder, leaf_key, certificate=leaf, chain=(root,))
    assert oms.verify_folder(folder, trust.load(store)).who == "ours"
    said = _judge("verify", "certificate", folder, "--signature", signature, "--certificate_chain", root)
    assert said.returncode == 0, said.stdout + said.stderr

    trust.revoke(store, "ours", reason="the laptop was stolen", certificate=signed.key_id)
    assert _code(lambda: oms.verify_folder(folder, trust.load(store))) == "model.key-revoked"


# --- what is refused ----------------------------------------------------------------------------------------


def test_every_way_a_folder_can_differ_has_its_own_code_and_names_the_file(
    folder: Path, key: Path, store: Path
) -> None:
    trusted = trust.load(store)
    assert _code(lambda: oms.verify_folder(folder, trusted)) == "model.unsigned"
    oms.sign_folder(folder, key)
    oms.verify_folder(folder, trusted)

    weights = folder / "weights.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1] + b"\0")
    with pytest.raises(Integrity, match=r"weights\.safetensors") as caught:
        oms.verify_folder(folder, trusted)
    assert (caught.value.code, caught.value.details["file"]) == ("model.changed", "weights.safetensors")
    weights.write_bytes(whole)

    for name in ("extra.bin", ".hidden", "deep/er.txt", ".gitattributes"):
        added = folder / name
        added.parent.mkdir(exist_ok=True)
        added.write_bytes(b"x")
        with pytest.raises(Integrity) as caught:
            oms.verify_folder(folder, trusted)
        assert (caught.value.code, caught.value.details["file"]) == ("model.extra-file", name)
        added.unlink()

    (folder / "tokenizer.json").rename(folder.parent / "tokenizer.json")
    assert _code(lambda: oms.verify_folder(folder, trusted)) == "model.missing"
    (folder / "tokenizer.json").symlink_to(folder.parent / "tokenizer.json")
    assert _code(lambda: oms.verify_folder(folder, trusted)) == "model.link"


def test_a_signature_that_wants_weights_ignored_does_not_pass(
    folder: Path, store: Path, tmp_path: Path
) -> None:
    """The format lets a signer exclude paths; what is served has to be signed nevertheless."""
    private, public = _pair(tmp_path, ec.generate_private_key(ec.SECP256R1()))
    trust.add(store, "maker", public.read_bytes(), ("*",))
    said = _judge(
        "sign", "key", folder, "--signature", folder / "model.sig", "--private_key", private,
        "--ignore-paths", folder / "weights.safetensors",
    )  # fmt: skip
    assert said.returncode == 0, said.stdout + said.stderr
    assert _code(lambda: oms.verify_folder(folder, trust.load(store))) == "model.extra-file"


def test_a_manifest_cannot_lead_signing_out_of_its_folder(
    folder: Path, key: Path, store: Path, tmp_path: Path
) -> None:
    (folder / "model.json").write_text(json.dumps({"name": "../../../outside"}))
    before = sorted(tmp_path.rglob("*"))
    signature = oms.sign_folder(folder, key)
    assert sorted({*tmp_path.rglob("*")} - set(before)) == [signature]
    assert oms.verify_folder(folder, trust.load(store)).who == "organisation"


def test_no_changed_byte_of_a_signature_passes(folder: Path, key: Path, store: Path) -> None:
    signature = oms.sign_folder(folder, key)
    whole, trusted = signature.read_bytes(), trust.load(store)
    text = json.loads(whole)
    payload = bytearray(base64.b64decode(text["dsseEnvelope"]["payload"]))
    for at in range(0, len(payload), max(1, len(payload) // 40)):
        changed = bytes(payload[:at]) + bytes([payload[at] ^ 1]) + bytes(payload[at + 1 :])
        text["dsseEnvelope"]["payload"] = base64.b64encode(changed).decode()
        with pytest.raises(Integrity, match=r"model\.bad-signature"):
            oms.verify_signature(json.dumps(text).encode(), trusted, name=ORGANISATION)
    for cut in (0, 1, len(whole) // 2, len(whole) - 1):
        with pytest.raises(Integrity, match=r"model\.bad-signature"):
            oms_format.parse(whole[:cut])


@needs_vectors
def test_the_published_vectors_are_read_and_refused_as_published() -> None:
    for path in sorted((VECTORS / "vectors" / "valid").iterdir()):
        said = oms_format.parse(path.read_bytes())
        assert said.files is not None
        assert set(said.files) == {"signme-1", "signme-2"}, path.name
    for path in [
        *(VECTORS / "vectors" / "invalid").iterdir(),
        *(VECTORS / "vectors" / "invalid-payload").iterdir(),
    ]:
        with pytest.raises(Integrity, match=r"model\.bad-signature"):
            oms_format.parse(path.read_bytes())


# --- whose word counts --------------------------------------------------------------------------------------


def test_a_revoked_key_is_refused_at_once_and_a_rotated_one_from_its_day(
    folder: Path, keys: Path, key: Path, store: Path
) -> None:
    oms.sign_folder(folder, key)
    first = trust.key_id(ec_public(key))
    until = date(2030, 6, 30)
    retired, _made = trust.rotate_organisation(keys, store, until=until)
    assert retired.ids == (first,)
    assert (key.stat().st_mode & 0o777, trust.key_id(ec_public(key)) != first) == (0o600, True)

    assert oms.verify_folder(folder, trust.load(store, on=until)).who == retired.name
    late = trust.load(store, on=until + timedelta(days=1))
    assert _code(lambda: oms.verify_folder(folder, late)) == "model.key-expired"

    trust.revoke(store, retired.name, reason="the key was copied")
    with pytest.raises(Integrity, match="the key was copied") as caught:
        oms.verify_folder(folder, trust.load(store, on=date(2029, 1, 1)))
    assert caught.value.code == "model.key-revoked"
    oms.sign_folder(folder, key)
    assert oms.verify_folder(folder, trust.load(store)).who == "organisation"


def test_a_publisher_vouches_only_for_the_models_it_is_trusted_for(
    folder: Path, store: Path, tmp_path: Path
) -> None:
    private, public = _pair(tmp_path, ec.generate_private_key(ec.SECP256R1()))
    trust.add(store, "maker", public.read_bytes(), ("mistral-*",))
    oms.sign_folder(folder, private)
    assert _code(lambda: oms.verify_folder(folder, trust.load(store))) == "model.key-unknown"
    assert oms.verify_folder(folder, trust.load(store), name="mistral-small").who == "maker"


def test_trust_that_was_taken_away_does_not_come_back_with_the_next_start(keys: Path, store: Path) -> None:
    (store / "organisation.toml").unlink()
    assert trust.make_organisation(keys, store) == []
    assert trust.load(store).publishers == ()


def test_a_trust_store_with_one_bad_file_is_no_trust_store(store: Path, tmp_path: Path) -> None:
    entry = store / "organisation.toml"
    before = entry.read_text()
    for text in (
        "",
        "models = []\npem = 'organisation.pem'",
        before + "unknown = 1\n",
        "models = ['*']\npem = '../k'",
    ):
        entry.write_text(text)
        with pytest.raises(Usage, match=r"trust\.invalid"):
            trust.load(store)
    entry.write_text(before)
    (store / "twice.toml").write_text(before)
    with pytest.raises(Usage, match="the same key"):
        trust.load(store)
    wrong = (
        ed25519.Ed25519PrivateKey.generate()
        .public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    with pytest.raises(Unprocessable, match="ECDSA"):
        trust.describe_pem(wrong)


def ec_public(private: Path) -> ec.EllipticCurvePublicKey:
    key = serialization.load_pem_private_key(private.read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return key.public_key()


def _pair(folder: Path, key: ec.EllipticCurvePrivateKey) -> tuple[Path, Path]:
    private, public = folder / "maker.key", folder / "maker.pem"
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    public.write_bytes(
        key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )
    return private, public


def _authority(folder: Path, name: str) -> tuple[Path, Path, Path]:
    """A root certificate, and the key and certificate of one signer under it."""
    now = datetime.now(UTC)
    root_key, leaf_key = ec.generate_private_key(ec.SECP384R1()), ec.generate_private_key(ec.SECP256R1())
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{name} root")])

    def build(subject: str, public: ec.EllipticCurvePublicKey, *, ca: bool) -> x509.Certificate:
        usage = x509.KeyUsage(
            digital_signature=not ca, content_commitment=False, key_encipherment=False,
            data_encipherment=False, key_agreement=False, key_cert_sign=ca, crl_sign=ca,
            encipher_only=False, decipher_only=False,
        )  # fmt: skip
        return (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
            .issuer_name(issuer)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=30))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(usage, critical=True)
            .sign(root_key, hashes.SHA384())
        )

    root, leaf = (
        build(f"{name} root", root_key.public_key(), ca=True),
        build(f"{name} signer", leaf_key.public_key(), ca=False),
    )
    paths = folder / f"{name}-root.pem", folder / f"{name}.key", folder / f"{name}.pem"
    paths[0].write_bytes(root.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        leaf_key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    paths[2].write_bytes(leaf.public_bytes(serialization.Encoding.PEM))
    return paths
