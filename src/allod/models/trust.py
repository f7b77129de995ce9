"""Whose word about a model counts: publishers' keys and certificates, and the organisation's own model key.

`<home>/trust/NAME.toml` names one publisher, for which models it may vouch, and the PEM file beside it. A key
that is replaced goes on verifying what it signed until the day in `until`; one with `revoked` verifies
nothing from that moment, whatever it signed and whenever. The organisation's own key is ECDSA P-256
(OpenSSF Model Signing takes nothing else than NIST curves) and never the log's.
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
import os
import re
import tomllib
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Literal

import msgspec
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from allod.errors import NotFound, Unprocessable, Usage
from allod.ledger.files import replace
from allod.limits import TRUST_PEM_BYTES_MAX

ORGANISATION = "organisation"
KEY_NAME = "models.ecdsa.key"
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")
UNREADABLE = (ValueError, UnsupportedAlgorithm, x509.InvalidVersion)  # what malformed keys end in
_CURVES = ("secp256r1", "secp384r1", "secp521r1")


class _File(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A trust file as written. Days are UTC."""

    models: tuple[str, ...]
    pem: str
    until: date | None = None
    revoked: date | None = None
    reason: str = ""
    revoked_certificates: tuple[str, ...] = ()


class Publisher(msgspec.Struct, frozen=True, kw_only=True):
    """One whose signatures count. `ids` are "sha256:<hex>": of a key's PEM (the hint that OMS puts into a
    signature), or the fingerprints of the certificates that a signer's certificate has to lead to."""

    name: str
    kind: Literal["key", "certificate"]
    ids: tuple[str, ...]
    pem: bytes
    models: tuple[str, ...]  # shell patterns of model names
    until: date | None = None
    revoked: date | None = None
    reason: str = ""
    revoked_certificates: tuple[str, ...] = ()

    def vouches_for(self, model: str) -> bool:
        return any(fnmatch.fnmatchcase(model, pattern) for pattern in self.models)


class Trust(msgspec.Struct, frozen=True, kw_only=True):
    """Everybody whose word counts, as of one day."""

    publishers: tuple[Publisher, ...]
    today: date

    def key(self, key_id: str) -> Publisher | None:
        return next((p for p in self.publishers if p.kind == "key" and key_id in p.ids), None)

    @property
    def authorities(self) -> tuple[Publisher, ...]:
        """Those that are trusted through certificates."""
        return tuple(p for p in self.publishers if p.kind == "certificate")


def key_id(public: ec.EllipticCurvePublicKey) -> str:
    """How OMS names a key: the SHA-256 of its PEM."""
    pem = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return "sha256:" + hashlib.sha256(pem).hexdigest()


def today() -> date:
    return datetime.now(UTC).date()


# --- reading ------------------------------------------------------------------------------------------------


def load(folder: Path, *, on: date | None = None) -> Trust:
    """Whom the files in `folder` trust; nobody where it is not there.

    Raises Usage `trust.invalid`, naming the file: half a trust store is none, and a key in two files could be
    revoked in one and trusted in the other.
    """
    files = sorted(folder.glob("*.toml")) if folder.is_dir() else []
    publishers = tuple(_read(f) for f in files)
    seen: dict[str, str] = {}
    for publisher in publishers:
        for id_ in publisher.ids:
            if seen.setdefault(id_, publisher.name) != publisher.name:
                raise Usage(
                    "trust.invalid",
                    f"{publisher.name}.toml and {seen[id_]}.toml name the same key",
                    hint=f"remove one of them from {folder}",
                )
    return Trust(publishers=publishers, today=on or today())


def _read(path: Path) -> Publisher:
    try:
        file = msgspec.convert(tomllib.loads(path.read_text(encoding="utf-8")), _File)
        pem_path = path.parent / file.pem
        if Path(file.pem).name != file.pem:
            raise ValueError("`pem` names a file beside this one")
        if not file.models:
            raise ValueError("`models` is empty")
        pem = pem_path.read_bytes()
        kind, ids = describe_pem(pem)
    except (OSError, ValueError, msgspec.ValidationError, Unprocessable) as e:
        why = e.message if isinstance(e, Unprocessable) else str(e)
        raise Usage(
            "trust.invalid", f"{path.name}: {why}", hint=f"correct or remove {path}", file=str(path)
        ) from e
    return Publisher(
        name=path.stem,
        kind=kind,
        ids=ids,
        pem=pem,
        models=file.models,
        until=file.until,
        revoked=file.revoked,
        reason=file.reason,
        revoked_certificates=file.revoked_certificates,
    )


def describe_pem(pem: bytes) -> tuple[Literal["key", "certificate"], tuple[str, ...]]:
    """What kind of trust a PEM file carries, and its ids. Raises Unprocessable `trust.bad-pem`."""
    try:
        if len(pem) > TRUST_PEM_BYTES_MAX:
            raise ValueError("the file is too large for keys or certificates")
        if b"BEGIN CERTIFICATE" in pem:
            found = x509.load_pem_x509_certificates(pem)
            return "certificate", tuple(fingerprint(c) for c in found)
        if b"PRIVATE KEY" in pem:
            raise ValueError("this is a private key; trust takes the public one")
        key = serialization.load_pem_public_key(pem)
        if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name not in _CURVES:
            raise ValueError("OpenSSF Model Signing takes ECDSA keys on P-256, P-384 or P-521 only")
        return "key", (key_id(key),)
    except UNREADABLE as e:
        raise Unprocessable("trust.bad-pem", f"no usable key or certificate: {e}") from e


def fingerprint(certificate: x509.Certificate) -> str:
    return "sha256:" + certificate.fingerprint(hashes.SHA256()).hex()


# --- changing -----------------------------------------------------------------------------------------------


def add(folder: Path, name: str, pem: bytes, models: tuple[str, ...]) -> Publisher:
    """Trusts a publisher for the models that `models` (shell patterns) matches.

    Raises Usage `trust.bad-name`, `trust.exists`; Unprocessable `trust.bad-pem`.
    """
    if not _NAME.fullmatch(name):
        raise Usage("trust.bad-name", f"{name!r} is no name of a publisher", hint="lower-case, digits, '-'")
    path = folder / f"{name}.toml"
    if path.exists():
        raise Usage("trust.exists", f"{name} is in the trust store already", hint="allod models trust ls")
    kind, ids = describe_pem(pem)
    for known in load(folder).publishers:
        if set(ids) & set(known.ids):
            raise Usage("trust.exists", f"this key is trusted as {known.name}", hint="allod models trust ls")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    publisher = Publisher(name=name, kind=kind, ids=ids, pem=pem, models=models)
    replace(folder / f"{name}.pem", pem)
    _write(folder, publisher)
    return publisher


def carry_over(folder: Path, publisher: Publisher) -> Publisher:
    """Trusts whom another node trusts, with the same bounds, under the same name or one with its key in it.

    The organisation of another node is a publisher here. Raises Usage `trust.exists` on a key that is known.
    """
    known = load(folder).publishers
    if any(set(publisher.ids) & set(p.ids) for p in known):
        raise Usage("trust.exists", f"the key of {publisher.name} is trusted already")
    if publisher.name == ORGANISATION or any(p.name == publisher.name for p in known):
        short = publisher.ids[0].removeprefix("sha256:")[:8]
        publisher = msgspec.structs.replace(publisher, name=f"{publisher.name[:55]}-{short}")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    replace(folder / f"{publisher.name}.pem", publisher.pem)
    _write(folder, publisher)
    return publisher


def revoke(
    folder: Path, name: str, *, reason: str, certificate: str = "", on: date | None = None
) -> Publisher:
    """Takes a publisher's word away at once, or only that of one certificate (its SHA-256 fingerprint).

    Raises NotFound `trust.unknown`, Usage `trust.no-certificates`.
    """
    known = next((p for p in load(folder).publishers if p.name == name), None)
    if known is None:
        raise NotFound("trust.unknown", f"nobody called {name} is trusted", hint="allod models trust ls")
    if certificate and known.kind == "key":
        raise Usage(
            "trust.no-certificates", f"{name} is trusted by key", hint=f"allod models trust revoke {name}"
        )
    if certificate:
        gone = tuple(sorted({*known.revoked_certificates, certificate}))
        known = msgspec.structs.replace(known, revoked_certificates=gone, reason=reason)
    else:
        known = msgspec.structs.replace(known, revoked=known.revoked or on or today(), reason=reason)
    _write(folder, known)
    return known


def _write(folder: Path, publisher: Publisher) -> None:
    lines = [
        "# Whose signatures on which models count. Days are UTC.",
        f"models = {json.dumps(publisher.models, ensure_ascii=False)}",
        f'pem = "{publisher.name}.pem"',
    ]
    if publisher.until:
        lines.append(f"until = {publisher.until.isoformat()}  # what it signed verifies through this day")
    if publisher.revoked:
        lines.append(f"revoked = {publisher.revoked.isoformat()}  # nothing it signed verifies")
    if publisher.revoked_certificates:
        lines.append(f"revoked_certificates = {json.dumps(publisher.revoked_certificates)}")
    if publisher.reason:
        lines.append(f"reason = {json.dumps(publisher.reason, ensure_ascii=False)}")
    replace(folder / f"{publisher.name}.toml", ("\n".join(lines) + "\n").encode())


# --- the organisation's own key -----------------------------------------------------------------------------


def organisation_key(keys: Path) -> Path:
    """Where the key is that signs what the organisation admits. NotFound `home.incomplete` if it is not."""
    path = keys / KEY_NAME
    if not path.is_file():
        raise NotFound("home.incomplete", f"{keys} lacks {KEY_NAME}", hint="allod init")
    return path


def make_organisation(keys: Path, folder: Path) -> list[Path]:
    """Makes the organisation's key, mode 0600, and trusts it for every model; gives what was made.

    Nothing where the key is there already: trust that an administrator took away does not come back.
    """
    private = keys / KEY_NAME
    if private.exists():
        return []
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    key = ec.generate_private_key(ec.SECP256R1())
    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    publisher = Publisher(
        name=ORGANISATION, kind="key", ids=(key_id(key.public_key()),), pem=public, models=("*",)
    )
    # The key comes last: with it everything is there, and without it all of it is made again.
    replace(folder / f"{ORGANISATION}.pem", public)
    _write(folder, publisher)
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    replace(private, secret, mode=0o600)
    return [private, folder / f"{ORGANISATION}.toml", folder / f"{ORGANISATION}.pem"]


def rotate_organisation(keys: Path, folder: Path, *, until: date) -> tuple[Publisher, list[Path]]:
    """Replaces the organisation's key; what the old one signed verifies through the day `until`.

    The old private key is destroyed: nothing is signed with it any more. Gives the old key's entry in the
    trust store and what was made.
    """
    private = organisation_key(keys)
    old = next((p for p in load(folder).publishers if p.name == ORGANISATION), None)
    if old is None:
        raise NotFound(
            "trust.unknown", "the organisation's own key is not trusted", hint="allod models trust ls"
        )
    retired = msgspec.structs.replace(
        old, name=f"{ORGANISATION}-{old.ids[0].removeprefix('sha256:')[:8]}", until=until
    )
    replace(folder / f"{retired.name}.pem", retired.pem)
    _write(folder, retired)
    _destroy(private)
    return retired, make_organisation(keys, folder)


def _destroy(path: Path) -> None:
    """Overwrites, then removes. On copy-on-write storage older blocks may survive: the volume is encrypted
    there, or the key lives in hardware."""
    with path.open("r+b") as f:
        f.write(os.urandom(path.stat().st_size))
        f.flush()
        os.fsync(f.fileno())
    path.unlink()
