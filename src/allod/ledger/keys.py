"""Record keys and private openings, beside the tree and not part of it. Destroying one is erasure.

In chunks of INDEX_CHUNK_LEAVES leaves:

    keys/<n>       one 32-byte slot per leaf; zeros where the key was destroyed
    openings/<n>   per leaf: length u16 · crc32 u32 · sealed note (big-endian)

A note is sealed with ChaCha20-Poly1305 under a key derived from the record key, so it goes with it. A
destroyed slot is overwritten in place; on storage that keeps old blocks (snapshots, copy-on-write, worn
flash) the operator has to retire those copies too.
"""

from __future__ import annotations

import hmac
import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from allod.errors import Integrity
from allod.ledger import files
from allod.ledger.segment import Entry
from allod.limits import INDEX_CHUNK_LEAVES

KEY_BYTES = 32
ERASED = bytes(KEY_BYTES)

_HEAD = struct.Struct(">HI")
_ONE_USE = bytes(12)  # nonce: the sealing key seals exactly one note
_NOTHING = _HEAD.pack(0, zlib.crc32(b""))


def keys_path(chunk: int) -> str:
    return f"keys/{chunk:09d}"


def openings_path(chunk: int) -> str:
    return f"openings/{chunk:09d}"


class KeyStore:
    """The keys of a log of `size` leaves. Leftovers of an uncommitted batch are cut off when it is opened."""

    def __init__(self, root: Path, size: int) -> None:
        self._root = root
        for name in ("keys", "openings"):
            (root / name).mkdir(mode=0o700, parents=True, exist_ok=True)
        chunk, used = divmod(size, INDEX_CHUNK_LEAVES)
        self._openings_end = 0
        path = root / openings_path(chunk)
        if used and path.exists():
            self._openings_end = sum(
                len(sealed) + _HEAD.size for sealed in sealed_notes(path.read_bytes(), used)
            )
        for name, length in (
            (keys_path(chunk), used * KEY_BYTES),
            (openings_path(chunk), self._openings_end),
        ):
            if (root / name).exists():
                os.truncate(root / name, length)
        while chunk := chunk + 1:
            leftovers = [p for p in (root / keys_path(chunk), root / openings_path(chunk)) if p.exists()]
            if not leftovers:
                break
            for leftover in leftovers:
                leftover.unlink()

    def write(self, first: int, entries: Sequence[Entry]) -> int:
        """Stores keys and openings of the leaves from `first` on, durably. Returns a mark for `commit`."""
        end, at = self._openings_end, 0
        while at < len(entries):
            chunk, slot = divmod(first + at, INDEX_CHUNK_LEAVES)
            part = entries[at : at + INDEX_CHUNK_LEAVES - slot]
            if slot == 0:
                end = 0
            notes = b"".join([seal(e) if e.opening else _NOTHING for e in part])
            self._write_at(keys_path(chunk), slot * KEY_BYTES, b"".join([e.key for e in part]))
            self._write_at(openings_path(chunk), end, notes)
            end += len(notes)
            at += len(part)
        if (first + at) % INDEX_CHUNK_LEAVES == 0:
            end = 0
        return end

    def commit(self, mark: int) -> None:
        self._openings_end = mark

    def key(self, index: int) -> bytes | None:
        """The record key, or None where it was destroyed. Raises Integrity where the store is damaged."""
        chunk, slot = divmod(index, INDEX_CHUNK_LEAVES)
        with (self._root / keys_path(chunk)).open("rb") as f:
            f.seek(slot * KEY_BYTES)
            key = f.read(KEY_BYTES)
        if len(key) != KEY_BYTES:
            raise Integrity("ledger.damaged", f"{keys_path(chunk)} ends before slot {slot}")
        return None if key == ERASED else key

    def opening(self, index: int, id_: str, key: bytes) -> bytes:
        """The note that was stored beside the key; empty if there was none. Raises Integrity."""
        chunk, slot = divmod(index, INDEX_CHUNK_LEAVES)
        for at, sealed in enumerate(sealed_notes((self._root / openings_path(chunk)).read_bytes(), slot + 1)):
            if at == slot:
                return unseal(sealed, id_, key)
        raise Integrity("ledger.damaged", f"{openings_path(chunk)} ends before slot {slot}")

    def destroy(self, index: int) -> None:
        """Overwrites the key with zeros, durably."""
        chunk, slot = divmod(index, INDEX_CHUNK_LEAVES)
        self._write_at(keys_path(chunk), slot * KEY_BYTES, ERASED)

    def _write_at(self, name: str, offset: int, data: bytes) -> None:
        path = self._root / name
        new = not path.exists()
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.lseek(fd, offset, os.SEEK_SET)
            files.write_fully(fd, data)
            os.fdatasync(fd)
        finally:
            os.close(fd)
        if new:
            files.sync_folder(path.parent)


def seal(entry: Entry) -> bytes:
    sealed = ChaCha20Poly1305(_sealing_key(entry.key)).encrypt(_ONE_USE, entry.opening, entry.id.encode())
    return _HEAD.pack(len(sealed), zlib.crc32(sealed)) + sealed


def unseal(sealed: bytes, id_: str, key: bytes) -> bytes:
    """Raises Integrity if the note was changed or belongs to another record."""
    if not sealed:
        return b""
    try:
        return ChaCha20Poly1305(_sealing_key(key)).decrypt(_ONE_USE, sealed, id_.encode())
    except InvalidTag as e:
        raise Integrity("ledger.damaged", f"the private note of {id_} was changed") from e


def sealed_notes(data: bytes, count: int) -> Iterator[bytes]:
    """The first `count` sealed notes of an openings file. Raises Integrity where they are damaged."""
    at = 0
    for slot in range(count):
        if at + _HEAD.size > len(data):
            raise Integrity("ledger.damaged", f"the openings end before slot {slot}", offset=at)
        length, crc = _HEAD.unpack_from(data, at)
        start = at + _HEAD.size
        sealed = data[start : start + length]
        if zlib.crc32(sealed) != crc or len(sealed) != length:
            raise Integrity("ledger.damaged", f"the opening in slot {slot} is damaged", offset=at)
        at = start + length
        yield sealed


def _sealing_key(key: bytes) -> bytes:
    return hmac.digest(key, b"allod-opening/1", "sha256")
