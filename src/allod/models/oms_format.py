"""A signature of OpenSSF Model Signing v1.0 as it is written: read strictly, believed in nothing.

Guarantees: whatever the bytes, `parse` gives what they say or raises Integrity `model.bad-signature`.
A Sigstore bundle v0.3 holds a DSSE envelope, which holds an in-toto Statement with the predicate
https://model_signing/signature/v1.0. Source: github.com/ossf/model-signing-spec, spec/v1.0.md and schemas.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from cryptography import x509
from msgspec import Meta

from allod.errors import Integrity
from allod.models.manifest import SIGNATURE_NAME
from allod.models.trust import UNREADABLE, fingerprint

_BUNDLE_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"

_Hex = Annotated[str, Meta(pattern=r"^[0-9a-f]+$")]
_Text = Annotated[str, Meta(min_length=1)]


class _Loose(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Parts that belong to Sigstore, which may add fields."""


class _Strict(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """Parts that OMS closes."""


class _PublicKey(_Loose, frozen=True):
    hint: str = ""


class _Certificate(_Loose, frozen=True):
    raw_bytes: Annotated[bytes, Meta(min_length=1)]


class _Chain(_Loose, frozen=True):
    certificates: Annotated[tuple[_Certificate, ...], Meta(min_length=1)]


class _Material(_Loose, frozen=True):
    public_key: _PublicKey | None = None
    x509_certificate_chain: _Chain | None = None
    certificate: _Certificate | None = None
    tlog_entries: tuple[msgspec.Raw, ...] = ()


class _Signature(_Strict, frozen=True):
    sig: Annotated[bytes, Meta(min_length=1)]
    keyid: str | None = None


class _Envelope(_Strict, frozen=True):
    payload: Annotated[bytes, Meta(min_length=1)]
    payload_type: Literal["application/vnd.in-toto+json"]
    signatures: Annotated[tuple[_Signature, ...], Meta(min_length=1)]


class _Bundle(_Strict, frozen=True):
    media_type: str
    verification_material: _Material
    dsse_envelope: _Envelope


class _Subject(msgspec.Struct, frozen=True):
    name: _Text
    digest: dict[str, _Hex]


class _Resource(msgspec.Struct, frozen=True):
    name: _Text
    digest: _Hex
    algorithm: Literal["sha256", "blake2b", "blake3"]


class _Serialization(msgspec.Struct, frozen=True):
    method: Literal["files", "shards"]
    hash_type: Literal["sha256", "blake2b", "blake3"]
    allow_symlinks: bool
    shard_size: int | None = None
    ignore_paths: tuple[str, ...] = ()


class _Predicate(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    resources: tuple[_Resource, ...]
    serialization: _Serialization


class _Statement(_Strict, frozen=True):
    type_: Literal["https://in-toto.io/Statement/v1"] = msgspec.field(name="_type")
    subject: Annotated[tuple[_Subject, ...], Meta(min_length=1, max_length=1)]
    predicate_type: Literal["https://model_signing/signature/v1.0"]
    predicate: _Predicate


class Parsed(msgspec.Struct, frozen=True, kw_only=True):
    """What a signature file says. Nothing of it has been verified."""

    method: Literal["key", "certificate", "sigstore"]
    key_id: str  # of the key or of the signing certificate
    certificates: tuple[bytes, ...]  # DER, the signer's first
    root: str
    ignored: tuple[str, ...]
    files: dict[str, str] | None  # None: hashed in another way than whole files by SHA-256


def parse(raw: bytes) -> Parsed:
    """Reads a signature file strictly. Raises Integrity `model.bad-signature`."""
    try:
        bundle = msgspec.json.decode(raw, type=_Bundle)
        statement = msgspec.json.decode(bundle.dsse_envelope.payload, type=_Statement)
        if bundle.media_type != _BUNDLE_TYPE:
            raise ValueError(f"its media type is {bundle.media_type[:80]}")
        method, key_id, certificates = _signer(bundle.verification_material)
        predicate, root = statement.predicate, statement.subject[0].digest.get("sha256", "")
        if len(root) != 64:
            raise ValueError("its subject has no SHA-256 digest")
        plain = predicate.serialization.method == "files" and predicate.serialization.hash_type == "sha256"
        files = {r.name: f"sha256:{r.digest}" for r in predicate.resources}
        if len(files) != len(predicate.resources):
            raise ValueError("it names a file twice")
    except (*UNREADABLE, msgspec.MsgspecError, RecursionError) as e:
        raise bad(f"it is not an OpenSSF Model Signing v1.0 signature: {e}") from e
    return Parsed(
        method=method,
        key_id=key_id,
        certificates=certificates,
        root=f"sha256:{root}",
        ignored=predicate.serialization.ignore_paths,
        files=files if plain and all(r.algorithm == "sha256" for r in predicate.resources) else None,
    )


def _signer(
    material: _Material,
) -> tuple[Literal["key", "certificate", "sigstore"], str, tuple[bytes, ...]]:
    if material.public_key is not None:
        hint = material.public_key.hint
        if len(hint) != 64:
            raise ValueError("it does not name its key as OMS v1.0 does")
        return "key", f"sha256:{hint}", ()
    if material.x509_certificate_chain is not None:
        ders = tuple(c.raw_bytes for c in material.x509_certificate_chain.certificates)
        return "certificate", fingerprint(x509.load_der_x509_certificate(ders[0])), ders
    if material.certificate is not None:
        if not material.tlog_entries:
            raise ValueError("a keyless signature without its transparency log entry")
        der = material.certificate.raw_bytes
        return "sigstore", fingerprint(x509.load_der_x509_certificate(der)), (der,)
    raise ValueError("it does not say who signed")


def bad(why: str) -> Integrity:
    """The refusal of a signature that is malformed or does not verify."""
    return Integrity(
        "model.bad-signature",
        f"{SIGNATURE_NAME} does not hold: {why}",
        hint="fetch the model again from a source you trust",
    )
