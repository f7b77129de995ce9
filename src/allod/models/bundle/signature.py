"""Who signed a bundle, and whether that counts.

`manifest.json.sig` is an ECDSA signature over SHA-256 of `manifest.json`, in DER, by the organisation's model
key, so that a stranger needs nothing but openssl:

    openssl dgst -sha256 -verify KEY.pem -signature manifest.json.sig manifest.json

`manifest.json.sha256` (the form of sha256sum) is there so that damage to the manifest and damage to the
signature can be told from each other. Nothing behind these three members is read before they hold.
"""

from __future__ import annotations

import contextlib
import hashlib
from pathlib import Path
from typing import BinaryIO

import msgspec
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed

from allod.errors import AllodError, Denied, Integrity, Unprocessable
from allod.limits import BUNDLE_MANIFEST_BYTES_MAX, BUNDLE_SIGNATURE_BYTES_MAX
from allod.models.bundle import manifest as manifests
from allod.models.bundle.container import BLOCK, Reader, changed, header, padding
from allod.models.bundle.manifest import Manifest, Signer
from allod.models.trust import Publisher, Trust, describe_pem, key_id

MANIFEST = "manifest.json"
SUM = "manifest.json.sha256"
SIGNATURE = "manifest.json.sig"
CONFIRMED = "confirmed"  # a signer that a person named, and no trust store knows yet
_SUM_BYTES = 64 + 2 + len(MANIFEST) + 1


class Opened(msgspec.Struct, frozen=True, kw_only=True):
    """A bundle whose manifest holds; `signer` is whose word that is."""

    manifest: Manifest
    digest: str  # of the manifest
    signer: Publisher
    head_bytes: int  # before the first content


def load_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """Raises Unprocessable `trust.bad-key`."""
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), None)
    except (ValueError, TypeError, OSError) as e:
        raise Unprocessable("trust.bad-key", f"{path.name} cannot sign bundles: {e}") from e
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise Unprocessable("trust.bad-key", f"{path.name} is no ECDSA key, so it cannot sign bundles")
    return key


def signer_of(key: ec.EllipticCurvePrivateKey) -> Signer:
    public = key.public_key()
    pem = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return Signer(key=key_id(public), pem=pem.decode())


def head(manifest: Manifest, key: ec.EllipticCurvePrivateKey) -> bytes:
    """The first three members. The same manifest and key give the same bytes (RFC 6979)."""
    raw = manifests.encode(manifest)
    line = f"{hashlib.sha256(raw).hexdigest()}  {MANIFEST}\n".encode()
    signed = key.sign(raw, ec.ECDSA(hashes.SHA256(), deterministic_signing=True))
    parts = ((MANIFEST, raw), (SUM, line), (SIGNATURE, signed))
    return b"".join(header(path, len(data)) + data + padding(len(data)) for path, data in parts)


def trusting(trust: Trust, words: tuple[str, ...], raw_signer: Signer) -> Trust:
    """`trust`, and beside it the bundle's signer where `words` name it: by fingerprint or by PEM file.

    Raises Unprocessable `trust.bad-pem`, `bundle.bad-key`.
    """
    named = {_fingerprint(word) for word in words}
    if raw_signer.key not in named or trust.key(raw_signer.key) is not None:
        return trust
    publisher = Publisher(
        name=CONFIRMED, kind="key", ids=(raw_signer.key,), pem=raw_signer.pem.encode(), models=("*",)
    )
    return msgspec.structs.replace(trust, publishers=(*trust.publishers, publisher))


def _fingerprint(word: str) -> str:
    if word.startswith("sha256:"):
        return word
    try:
        return describe_pem(Path(word).read_bytes())[1][0]
    except OSError as e:
        raise Unprocessable(
            "bundle.bad-key",
            f"{word!r} is neither a fingerprint nor a readable PEM file",
            hint="sha256: and 64 hexadecimal digits, or the path of the public key",
        ) from e


def open_(f: BinaryIO, trust: Trust, words: tuple[str, ...] = ()) -> tuple[Opened, Reader]:
    """Reads the first three members and passes only if a signer that counts signed the manifest.

    Raises Integrity `bundle.changed`, `bundle.truncated`, `bundle.bad-signature`; Denied
    `bundle.signer-unknown`, `bundle.signer-revoked`, `bundle.signer-expired`; Unprocessable
    `bundle.not-a-bundle`, `bundle.bad-manifest`, `bundle.bad-path`.
    """
    reader = Reader(f)
    raw = reader.whole(MANIFEST, BUNDLE_MANIFEST_BYTES_MAX)
    line_at = reader.offset
    line = reader.whole(SUM, _SUM_BYTES)
    signed_at = reader.offset
    signed = reader.whole(SIGNATURE, BUNDLE_SIGNATURE_BYTES_MAX)
    found = hashlib.sha256(raw).hexdigest()
    if line != f"{found}  {MANIFEST}\n".encode():
        if _intact(raw, signed, trust):
            raise changed(SUM, "its content", line_at + BLOCK, line_at + BLOCK + len(line))
        raise changed(MANIFEST, "its content", BLOCK, BLOCK + len(raw))
    manifest = manifests.parse(raw)
    signer = _judge(manifest.signer, trusting(trust, words, manifest.signer))
    if not _holds(signer.pem, signed, bytes.fromhex(found)):
        begin = signed_at + BLOCK
        raise Integrity(
            "bundle.bad-signature",
            f"{SIGNATURE} does not hold: the signature is not {signer.name}'s on this manifest"
            f" (bytes {begin} to {begin + len(signed) - 1} of the file)",
            hint="do not use it; copy the file again, or ask its maker",
            member=SIGNATURE,
            begin=begin,
            end=begin + len(signed),
        )
    return Opened(
        manifest=manifest, digest=f"sha256:{found}", signer=signer, head_bytes=reader.offset
    ), reader


def _judge(said: Signer, trust: Trust) -> Publisher:
    """The signer as one who is trusted, or a refusal that shows the fingerprint."""
    kind, ids = _described(said)
    if kind != "key" or ids != (said.key,):
        raise manifests.bad("its signer's key is not the one that it names")
    known = trust.key(said.key)
    if known is None:
        raise Denied(
            "bundle.signer-unknown",
            f"this bundle is signed by {said.key}, whom nobody here trusts",
            hint="compare the fingerprint with its owner by another way, then name it: --trust-key"
            " (apply) or --key (verify)",
            key=said.key,
        )
    if known.revoked is not None:
        raise Denied("bundle.signer-revoked", f"the key of {known.name} was revoked", key=said.key)
    if known.until is not None and trust.today > known.until:
        raise Denied(
            "bundle.signer-expired", f"the key of {known.name} verifies through {known.until}", key=said.key
        )
    return known


def _described(said: Signer) -> tuple[str, tuple[str, ...]]:
    try:
        return describe_pem(said.pem.encode())
    except AllodError as e:
        raise manifests.bad("its signer's key cannot be read") from e


def _holds(pem: bytes, signed: bytes, sha256: bytes) -> bool:
    try:
        key = serialization.load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm):  # a damaged manifest's
        return False
    if not isinstance(key, ec.EllipticCurvePublicKey):
        return False
    try:
        key.verify(signed, sha256, ec.ECDSA(Prehashed(hashes.SHA256())))
    except InvalidSignature:
        return False
    return True


def _intact(raw: bytes, signed: bytes, trust: Trust) -> bool:
    """Whether the manifest is as somebody signed it, where it and its sum differ."""
    pems = [p.pem for p in trust.publishers if p.kind == "key"]
    with contextlib.suppress(AllodError):  # one that cannot be read is the damaged one
        pems.append(manifests.parse(raw).signer.pem.encode())
    return any(_holds(pem, signed, hashlib.sha256(raw).digest()) for pem in pems)
