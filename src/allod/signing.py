"""Keys of the log and its witnesses, and signed notes (C2SP signed-note, tlog-cosignature).

Three signature types, each bound to what it may say:

    0x01  Ed25519 over the note text                                         the log
    0x04  Ed25519 over "cosignature/v1", a time and the note text            a witness
    0x06  ML-DSA-44 (FIPS 204) over a binary form of the checkpoint and a time   the log or a witness

Parsing is strict: a note, a verifier key or a signer key has exactly one accepted spelling, so that any
changed byte is noticed. Signer keys live in files of mode 0600 and nowhere else.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import stat
import struct
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ed25519, mldsa

from allod.errors import Integrity, NotFound, Usage
from allod.limits import NOTE_BYTES_MAX, NOTE_SIGNATURES_MAX

ED25519 = 0x01
COSIGNATURE = 0x04
MLDSA44 = 0x06

_PUBLIC_BYTES = {ED25519: 32, COSIGNATURE: 32, MLDSA44: 1312}
_SEED_BYTES = 32  # of all three
_DASH = "— "
_SKEY_PREFIX = "PRIVATE+KEY+"


class Verifier(Protocol):
    """A public key that can judge note signatures."""

    @property
    def name(self) -> str: ...
    @property
    def key_id(self) -> bytes: ...
    def verify(self, text: bytes, blob: bytes) -> bool:
        """Whether `blob` is this key's signature on `text`. Never raises."""
        ...


class Signer(Protocol):
    """A private key that signs note texts."""

    @property
    def vkey(self) -> VKey: ...
    def sign(self, text: bytes, time_s: int) -> bytes:
        """The signature blob (without key id) on `text`; `time_s` is UTC seconds, used by timed types."""
        ...


class VKey(NamedTuple):
    """A verifier key: `name+hex8+base64(type ‖ public)`. `public` is the raw encoding."""

    name: str
    type: int
    public: bytes

    @property
    def key_id(self) -> bytes:
        return hashlib.sha256(self.name.encode() + b"\n" + bytes([self.type]) + self.public).digest()[:4]

    def __str__(self) -> str:
        return f"{self.name}+{self.key_id.hex()}+{b64(bytes([self.type]) + self.public)}"

    @classmethod
    def parse(cls, text: str) -> VKey:
        """Raises Usage `vkey.malformed` on anything but the one right spelling."""
        parts = text.split("+", 2)
        data = unb64(parts[2]) if len(parts) == 3 else None
        if data and _PUBLIC_BYTES.get(data[0]) == len(data) - 1 and valid_name(parts[0]):
            key = cls(parts[0], data[0], data[1:])
            if str(key) == text:
                return key
        raise Usage("vkey.malformed", "this is not a verifier key", hint="it looks like name+1a2b3c4d+AZ…")

    def verify(self, text: bytes, blob: bytes) -> bool:
        try:
            if self.type == ED25519:
                ed25519.Ed25519PublicKey.from_public_bytes(self.public).verify(blob, text)
                return True
            if len(blob) <= 8:
                return False
            time_s = int.from_bytes(blob[:8], "big")
            if self.type == COSIGNATURE:
                message = cosignature_message(text, time_s)
                ed25519.Ed25519PublicKey.from_public_bytes(self.public).verify(blob[8:], message)
            else:
                message = subtree_message(self.name, text, time_s)
                mldsa.MLDSA44PublicKey.from_public_bytes(self.public).verify(blob[8:], message)
        except (InvalidSignature, ValueError):
            return False
        return True


class FileSigner:
    """A signer whose seed came from a key file or was just generated."""

    def __init__(self, name: str, type_: int, seed: bytes) -> None:
        if not valid_name(name) or type_ not in _PUBLIC_BYTES or len(seed) != _SEED_BYTES:
            raise Usage("skey.malformed", f"no key can be named {name!r} or have type {type_}")
        self._seed = seed
        self._key: ed25519.Ed25519PrivateKey | mldsa.MLDSA44PrivateKey
        if type_ == MLDSA44:
            self._key = mldsa.MLDSA44PrivateKey.from_seed_bytes(seed)
        else:
            self._key = ed25519.Ed25519PrivateKey.from_private_bytes(seed)
        self._vkey = VKey(name, type_, self._key.public_key().public_bytes_raw())

    @property
    def vkey(self) -> VKey:
        return self._vkey

    def sign(self, text: bytes, time_s: int) -> bytes:
        vkey = self._vkey
        if vkey.type == ED25519:
            return self._key.sign(text)
        message = (
            cosignature_message(text, time_s)
            if vkey.type == COSIGNATURE
            else subtree_message(vkey.name, text, time_s)
        )
        return struct.pack(">Q", time_s) + self._key.sign(message)

    def sign_raw(self, message: bytes) -> bytes:
        """The bare signature, for structures that separate their domain themselves (COSE Sig_structure)."""
        return self._key.sign(message)

    @classmethod
    def generate(cls, name: str, type_: int) -> FileSigner:
        return cls(name, type_, os.urandom(_SEED_BYTES))

    def save(self, path: Path) -> None:
        """Creates `path` with mode 0600; never overwrites a key."""
        vkey = self._vkey
        text = f"{_SKEY_PREFIX}{vkey.name}+{vkey.key_id.hex()}+{b64(bytes([vkey.type]) + self._seed)}\n"
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileExistsError as e:
            raise Usage("skey.exists", f"{path} holds a key already; a log key is never replaced") from e
        with os.fdopen(fd, "wb") as f:
            f.write(text.encode())
            f.flush()
            os.fsync(f.fileno())

    @classmethod
    def load(cls, path: Path) -> FileSigner:
        """Raises NotFound, Integrity `skey.exposed` (others may read it) or `skey.malformed`."""
        try:
            with path.open("rb") as f:
                mode = os.fstat(f.fileno()).st_mode
                text = f.read(4096)
        except FileNotFoundError as e:
            raise NotFound("skey.missing", f"there is no key at {path}", hint="allod init makes one") from e
        if stat.S_IMODE(mode) & 0o077:
            raise Integrity(
                "skey.exposed",
                f"{path} may be read by others",
                hint=f"chmod 600 {path}, and consider it known",
            )
        try:
            prefixed = text.decode("ascii")
            if not prefixed.startswith(_SKEY_PREFIX) or not prefixed.endswith("\n"):
                raise ValueError("prefix")
            name, key_id, encoded = prefixed[len(_SKEY_PREFIX) : -1].split("+", 2)
            data = unb64(encoded)
            if not data:
                raise ValueError("base64")
            signer = cls(name, data[0], data[1:])
        except (ValueError, Usage) as e:
            raise Integrity("skey.malformed", f"{path} is not a signer key") from e
        if signer.vkey.key_id.hex() != key_id:
            raise Integrity("skey.malformed", f"{path} does not match its own key id")
        return signer


def load_or_generate(path: Path, name: str, type_: int) -> FileSigner:
    """The key in `path`, made first if there is none. Raises Integrity if it has another name or type."""
    if not path.exists():
        FileSigner.generate(name, type_).save(path)
    signer = FileSigner.load(path)
    if signer.vkey.name != name or signer.vkey.type != type_:
        raise Integrity("skey.other", f"{path} is the key of {signer.vkey.name!r}, not of {name!r}")
    return signer


class Signature(NamedTuple):
    name: str
    key_id: bytes
    blob: bytes

    def line(self) -> str:
        return f"{_DASH}{self.name} {b64(self.key_id + self.blob)}\n"


class Note(NamedTuple):
    """A parsed note. `text` ends in a newline; nothing of it is trusted before `verify`."""

    text: bytes
    signatures: tuple[Signature, ...]

    def encode(self) -> bytes:
        return self.text + b"\n" + "".join(s.line() for s in self.signatures).encode()


def parse_note(data: bytes) -> Note:
    """Raises Integrity `note.malformed`; accepts exactly what `Note.encode` gives."""
    if len(data) > NOTE_BYTES_MAX:
        raise Integrity("note.malformed", f"a note has at most {NOTE_BYTES_MAX} bytes")
    text, blank, tail = data.rpartition(b"\n\n")
    try:
        whole = data.decode()
        if not blank or any(c < " " and c != "\n" for c in whole):
            raise ValueError("layout")
        signatures = parse_signatures(tail.decode())
    except ValueError as e:
        raise Integrity("note.malformed", "the signed note is malformed") from e
    note = Note(text + b"\n", signatures)
    if note.encode() != data:
        raise Integrity("note.malformed", "the signed note is not in its canonical spelling")
    return note


def parse_signatures(lines: str) -> tuple[Signature, ...]:
    """One or more signature lines, each ending in a newline. Raises ValueError."""
    if not lines.endswith("\n"):
        raise ValueError("no newline at the end")
    found = []
    for line in lines[:-1].split("\n"):
        name, _, encoded = line.removeprefix(_DASH).partition(" ")
        blob = unb64(encoded)
        if not line.startswith(_DASH) or not valid_name(name) or blob is None or len(blob) < 5:
            raise ValueError("signature line")
        found.append(Signature(name, blob[:4], blob[4:]))
        if len(found) > NOTE_SIGNATURES_MAX:
            raise ValueError("too many signatures")
    return tuple(found)


def sign_note(text: bytes, signers: Iterable[Signer], time_s: int) -> Note:
    """Signs with every signer, in order."""
    return Note(text, tuple(Signature(s.vkey.name, s.vkey.key_id, s.sign(text, time_s)) for s in signers))


def verify_note(note: Note, vkeys: Sequence[VKey]) -> tuple[VKey, ...]:
    """The keys of `vkeys` that signed. Signatures of unknown keys are ignored, as the specification demands.

    Raises Integrity `note.bad-signature` if a known key's signature is wrong, `note.unsigned` if none signed.
    """
    known = {(k.name, k.key_id): k for k in vkeys}
    signed: dict[VKey, None] = {}
    for s in note.signatures:
        key = known.get((s.name, s.key_id))
        if key is None:
            continue
        if not key.verify(note.text, s.blob):
            raise Integrity("note.bad-signature", f"the signature of {s.name} is wrong")
        signed[key] = None
    if not signed:
        raise Integrity("note.unsigned", "no trusted key signed this note", hint="check the verifier keys")
    return tuple(signed)


def cosignature_message(text: bytes, time_s: int) -> bytes:
    """What a 0x04 signature covers (C2SP tlog-cosignature)."""
    return b"cosignature/v1\ntime %d\n" % time_s + text


def subtree_message(name: str, text: bytes, time_s: int) -> bytes:
    """What a 0x06 signature covers: the tree of the checkpoint `text`. Raises ValueError if it is none."""
    lines = text.split(b"\n")
    if len(lines) < 4:
        raise ValueError("not a checkpoint")
    root = unb64(lines[2].decode("ascii"))
    if root is None or len(root) != 32 or not lines[1].isdigit():
        raise ValueError("not a checkpoint")
    cosigner, origin = name.encode(), lines[0]
    if not 0 < len(cosigner) < 256 or not 0 < len(origin) < 256:
        raise ValueError("name too long")
    head = b"subtree/v1\n\0" + bytes([len(cosigner)]) + cosigner + struct.pack(">Q", time_s)
    return head + bytes([len(origin)]) + origin + struct.pack(">QQ", 0, int(lines[1])) + root


def valid_name(name: str) -> bool:
    return 0 < len(name.encode()) < 256 and "+" not in name and not any(c.isspace() or c < " " for c in name)


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def unb64(text: str) -> bytes | None:
    """Standard base64 in its one canonical spelling, else None."""
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    return data if b64(data) == text else None
