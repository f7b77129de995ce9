"""OpenSSF Model Signing v1.0: signs a model's folder and judges such signatures, offline.

Guarantees: `verify_folder` passes a folder only if a trusted publisher, for this model, signed exactly the
files that lie in it; one more, one fewer or one changed byte is named. Signatures are made and checked by the
`model-signing` library; reading them strictly, deciding whose count and comparing files is done here, so that
the paths that a signature wants ignored are not ignored.

Source: github.com/ossf/model-signing-spec, spec/v1.0.md.
"""

from __future__ import annotations

import importlib
import os
import tempfile
import time
from pathlib import Path
from types import ModuleType
from typing import Literal

import msgspec

from allod import digest
from allod.errors import Integrity, NotReady, Unprocessable
from allod.limits import FILE_DIGESTS_REMEMBERED_MAX, OMS_SIGNATURE_BYTES_MAX
from allod.models.manifest import MANIFEST_NAME, SIGNATURE_NAME
from allod.models.oms_format import Parsed, bad, parse
from allod.models.reference import NAME
from allod.models.trust import ORGANISATION, UNREADABLE, Publisher, Trust

_UNSETTLED_NS = 2_000_000_000  # a file written this recently may change again without a new time stamp


class Signed(msgspec.Struct, frozen=True, kw_only=True):
    """A signature that counts."""

    who: str  # the publisher's name in the trust store
    key_id: str  # "sha256:<hex>": of the key's PEM, or the signing certificate's fingerprint
    digest: str  # "sha256:<hex>": the root digest of the signed statement
    method: Literal["key", "certificate"]
    files: dict[str, str]  # path in the folder -> "sha256:<hex>"


# --- signing ------------------------------------------------------------------------------------------------


def sign_folder(
    folder: Path, key: Path, *, certificate: Path | None = None, chain: tuple[Path, ...] = ()
) -> Path:
    """Signs every file of `folder` and returns the signature, `model.sig` in it, which replaces an older one.

    `key`: ECDSA private key on P-256, P-384 or P-521, PEM. With `certificate` (PEM) the signature carries it
    and `chain`. Raises Unprocessable `trust.bad-key`, Integrity `model.link`, NotReady
    `model-signing.not-installed`.
    """
    library = _library()
    paths(folder)
    target = folder / SIGNATURE_NAME
    hashing = library.hashing.Config().set_ignored_paths(paths=[SIGNATURE_NAME], ignore_git_paths=False)
    try:
        config = library.signing.Config().set_hashing_config(hashing)
        if certificate is None:
            config.use_elliptic_key_signer(private_key=key)
        else:
            config.use_certificate_signer(
                private_key=key, signing_certificate=certificate, certificate_chain=chain
            )
    except (*UNREADABLE, TypeError, OSError) as e:
        raise Unprocessable("trust.bad-key", f"{key.name} cannot sign models: {e}") from e
    # Beside the target, so that it is moved into place in one step, and outside of what is hashed.
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".sign-") as scratch:
        made = Path(scratch) / SIGNATURE_NAME
        config.sign(_under_its_name(folder, Path(scratch)), made)
        made.chmod(0o644)
        made.replace(target)
    return target


def _under_its_name(folder: Path, scratch: Path) -> Path:
    """The same files in a folder called like the model, which is what the statement's subject will say."""
    named = scratch / _name_in(folder)
    try:
        for path in paths(folder):
            (named / path).parent.mkdir(parents=True, exist_ok=True)
            os.link(folder / path, named / path)
    except OSError:  # a file system without links
        return folder
    return named


# --- verifying ----------------------------------------------------------------------------------------------


def verify_folder(folder: Path, trust: Trust, *, name: str = "") -> Signed:
    """Passes if somebody who may vouch for this model signed exactly the files in `folder`.

    `name` is the model's; by default the one in its manifest. A file's digest is remembered within the
    process by inode, size and time stamps, so unchanged files are read once. Raises Integrity:
    `model.unsigned`, `model.bad-signature`, `model.key-unknown`, `model.key-revoked`, `model.key-expired`,
    `model.changed`, `model.missing`, `model.extra-file`, `model.link`; `file` is in the details where one is
    at fault.
    """
    name = name or _name_in(folder)
    signed = verify_signature(read(folder), trust, name=name)
    found = paths(folder)
    for path in sorted(set(found) - set(signed.files)):
        raise Integrity(
            "model.extra-file",
            f"{name}: {path} lies in the folder and was not signed",
            hint="remove the file if you do not know it; if it belongs there: allod models sign " + name,
            file=path,
        )
    for path, expected in sorted(signed.files.items()):
        if path not in found:
            raise Integrity("model.missing", f"{name}: {path} is gone", file=path)
        actual = _digest_of(folder / path)
        if actual != expected:
            raise Integrity(
                "model.changed",
                f"{name}: {path} is not the file that {signed.who} signed",
                hint="add the model again from a source you trust",
                file=path,
                expected=expected,
                found=actual,
            )
    return signed


def verify_signature(raw: bytes, trust: Trust, *, name: str) -> Signed:
    """Whether `raw` is a signature on model `name` that counts; `files` of the result is what it vouches for.

    Reads no model file: for those who fetch a part of what a publisher signed. Raises as `verify_folder`.
    """
    said = parse(raw)
    if said.files is None:
        raise bad("it does not hash whole files with SHA-256, which is what is compared here")
    publisher = _publisher_of(raw, said, trust, name)
    _may_vouch(publisher, said, trust, name)
    return Signed(
        who=publisher.name, key_id=said.key_id, digest=said.root, method=publisher.kind, files=said.files
    )


def read(folder: Path) -> bytes:
    """The bytes of a folder's signature. Raises Integrity `model.unsigned`, `model.bad-signature`."""
    path = folder / SIGNATURE_NAME
    try:
        with path.open("rb") as f:
            raw = f.read(OMS_SIGNATURE_BYTES_MAX + 1)
    except FileNotFoundError as e:
        name = _name_in(folder)
        raise Integrity(
            "model.unsigned",
            f"{name} has no signature, so it is not served",
            hint=f"once you have checked where it came from: allod models sign {name}",
        ) from e
    if len(raw) > OMS_SIGNATURE_BYTES_MAX:
        raise bad("it is unreasonably large")
    return raw


def paths(folder: Path) -> tuple[str, ...]:
    """Every file under `folder` but its signature. Raises Integrity `model.link` on a symbolic link: what it
    leads to can change without it."""
    found = []
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder).as_posix()
        if path.is_symlink():
            raise Integrity("model.link", f"{_name_in(folder)}: {relative} is a symbolic link", file=relative)
        if not path.is_dir() and relative != SIGNATURE_NAME:
            found.append(relative)
    return tuple(found)


def _publisher_of(raw: bytes, said: Parsed, trust: Trust, name: str) -> Publisher:
    """Whose signature this is. Raises Integrity `model.key-unknown`, `model.bad-signature`."""
    if said.method == "key":
        publisher = trust.key(said.key_id)
        if publisher is not None and _holds(raw, publisher):
            return publisher
    elif said.method == "certificate":
        for authority in trust.authorities:
            if _holds(raw, authority):
                return authority
    raise _unknown(said.key_id, name)


def _unknown(key_id: str, name: str) -> Integrity:
    return Integrity(
        "model.key-unknown",
        f"{name} is signed with {key_id[:19]}…, which nobody here is trusted by",
        hint="if you know whose it is: allod models trust add",
        key=key_id,
    )


def _may_vouch(publisher: Publisher, said: Parsed, trust: Trust, name: str) -> None:
    if publisher.revoked is not None or said.key_id in publisher.revoked_certificates:
        why = f": {publisher.reason}" if publisher.reason else ""
        raise Integrity(
            "model.key-revoked",
            f"{name} is signed by {publisher.name}, whose key was revoked{why}",
            hint=(
                "allod models trust rotate, then allod models sign --all"
                if publisher.name == ORGANISATION
                else f"check the model's origin again, then: allod models sign {name}"
            ),
            key=said.key_id,
        )
    if publisher.until is not None and trust.today > publisher.until:
        raise Integrity(
            "model.key-expired",
            f"{name} is signed with a key of {publisher.name} that verifies through {publisher.until} only",
            hint=f"allod models sign {name}",
            key=said.key_id,
        )
    if not publisher.vouches_for(name):
        raise Integrity(
            "model.key-unknown",
            f"{publisher.name} is trusted for {', '.join(publisher.models)}, not for {name}",
            hint="allod models trust ls",
            key=said.key_id,
        )


def _name_in(folder: Path) -> str:
    """The name in a model's manifest; the folder's where there is none that may be one."""

    class Named(msgspec.Struct):
        name: str

    try:
        said = msgspec.json.decode((folder / MANIFEST_NAME).read_bytes(), type=Named).name
    except (OSError, msgspec.DecodeError):
        return folder.name
    return said if NAME.fullmatch(said) else folder.name


def _digest_of(path: Path) -> str:
    """The file's digest, remembered while inode, size and both time stamps stay as they are."""
    before = path.stat()
    stamp = (before.st_dev, before.st_ino, before.st_size, before.st_mtime_ns, before.st_ctime_ns)
    known = _remembered.get(stamp)
    if known is not None:
        return known
    found = digest.of_file(path)
    if path.stat().st_ctime_ns == before.st_ctime_ns < time.time_ns() - _UNSETTLED_NS:
        if len(_remembered) >= FILE_DIGESTS_REMEMBERED_MAX:
            _remembered.clear()
        _remembered[stamp] = found
    return found


_remembered: dict[tuple[int, ...], str] = {}


# --- the library --------------------------------------------------------------------------------------------


def _library() -> ModuleType:
    """`model_signing`, which takes a second to import and is needed by few processes."""
    try:
        return importlib.import_module("model_signing")
    except ImportError as e:
        raise NotReady(
            "model-signing.not-installed",
            f"models can be neither signed nor verified here: {e}",
            hint='pip install "allod[models]"',
        ) from e


def _holds(raw: bytes, publisher: Publisher) -> bool:
    """Whether the signature is this publisher's; False where the signer's certificate does not lead there.

    Raises Integrity `model.bad-signature` on one that is, and does not verify.
    """
    _library()
    from model_signing._signing import sign_certificate, sign_ec_key, sign_sigstore_pb
    from OpenSSL import crypto

    with tempfile.TemporaryDirectory() as scratch:
        pem, file = Path(scratch) / "publisher.pem", Path(scratch) / SIGNATURE_NAME
        pem.write_bytes(publisher.pem)
        file.write_bytes(raw)
        try:
            verifier = (
                sign_ec_key.Verifier(pem) if publisher.kind == "key" else sign_certificate.Verifier([pem])
            )
            verifier.verify(sign_sigstore_pb.Signature.read(file))
        except crypto.X509StoreContextError:
            return False
        except Exception as e:  # whatever the library trips over, it did not verify
            raise bad(str(e) or "the signature does not belong to what was signed") from e
    return True
