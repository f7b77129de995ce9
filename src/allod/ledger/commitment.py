"""Receipt ids, record keys and the keyed commitments that stand in a leaf in place of content.

A commitment is HMAC-SHA256 (RFC 2104) under a random key of this one record: without the key it says nothing
about the content, not even whether two records had the same; with it, it proves the content. The label keeps
input, output and actor apart, so that one cannot be passed off as another.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from binascii import hexlify
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

from allod.clock import Clock

if TYPE_CHECKING:
    from hashlib import _Hash as Hash

Label = Literal["input", "output", "actor"]

KEY_BYTES = 32
ID_CHARS = 28

_PREFIX: dict[Label, bytes] = {
    "input": b"allod-commitment/1 input\n",
    "output": b"allod-commitment/1 output\n",
    "actor": b"allod-commitment/1 actor\n",
}
_CROCKFORD = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_SYMBOL_OF = _CROCKFORD * 8  # of each byte value: its low five bits, as a symbol
_POOL_BYTES = 4096
_BLOCK_BYTES = 64  # of SHA-256
_INNER = bytes(b ^ 0x36 for b in range(256))
_OUTER = bytes(b ^ 0x5C for b in range(256))


class _Pool:
    """Random bytes, fetched from the kernel a page at a time; refilled in a forked child."""

    __slots__ = ("_at", "_bytes")

    def __init__(self) -> None:
        self._bytes = b""
        self._at = 0

    def take(self, n: int) -> bytes:
        at = self._at
        if at + n > len(self._bytes):
            self._bytes = os.urandom(_POOL_BYTES)
            at = 0
        self._at = at + n
        return self._bytes[at : at + n]

    def forget(self) -> None:
        self._bytes = b""


_pool = _Pool()
os.register_at_fork(after_in_child=_pool.forget)


def new_receipt_id(clock: Clock) -> str:
    """As `receipt_id` at this moment."""
    return receipt_id(clock.now_us())


def receipt_id(now_us: int) -> str:
    """ "r-" and 26 characters of Crockford base32: 48 bits of UTC milliseconds, 80 random bits."""
    random = _pool.take(16).translate(_SYMBOL_OF)  # five bits of each byte
    return "r-" + _stamp(now_us // 1000 & 0xFFFFFFFFFFFF) + random.decode("ascii")


@lru_cache(maxsize=4)  # many exchanges begin within one millisecond
def _stamp(ms: int) -> str:
    return bytes(_CROCKFORD[ms >> shift & 31] for shift in range(45, -1, -5)).decode("ascii")


def new_key() -> bytes:
    """A record key: 32 random bytes."""
    return _pool.take(KEY_BYTES)


def key_check(key: bytes) -> str:
    """What the leaf says of the key: its SHA-256, hex."""
    return hashlib.sha256(key).hexdigest()


def commit(key: bytes, label: Label, data: bytes) -> str:
    """The commitment to `data`, hex."""
    return hmac.digest(key, _PREFIX[label] + data, "sha256").hex()


class RecordKey:
    """One record's key, ready for the commitments of its record: what HMAC does with the key is done once,
    and the content is hashed where it lies.
    """

    __slots__ = ("_inner", "_outer", "check", "key")

    def __init__(self, key: bytes) -> None:
        self.key = key
        self.check = hexlify(hashlib.sha256(key).digest())  # as `key_check`
        block = key.ljust(_BLOCK_BYTES, b"\0")
        self._inner = hashlib.sha256(block.translate(_INNER))
        self._outer = hashlib.sha256(block.translate(_OUTER))

    def commit(self, label: Label, data: bytes) -> bytes:
        """As `commit`, in ASCII."""
        inner = self._inner.copy()
        inner.update(_PREFIX[label])
        inner.update(data)
        outer = self._outer.copy()
        outer.update(inner.digest())
        return hexlify(outer.digest())

    def commitment(self, label: Label) -> Commitment:
        """For content that arrives in pieces."""
        inner = self._inner.copy()
        inner.update(_PREFIX[label])
        return Commitment(inner, self._outer)


class Commitment:
    """A commitment to content that arrives in pieces, made by `RecordKey.commitment`."""

    __slots__ = ("_inner", "_outer", "update")

    def __init__(self, inner: Hash, outer: Hash) -> None:
        self._inner = inner
        self._outer = outer
        self.update = inner.update

    def hexdigest(self) -> bytes:
        """As `commit` of all pieces, in ASCII."""
        outer = self._outer.copy()
        outer.update(self._inner.digest())
        return hexlify(outer.digest())
