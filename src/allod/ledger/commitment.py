"""Receipt ids, record keys and the keyed commitments that stand in a leaf in place of content.

A commitment is HMAC-SHA256 (RFC 2104) under a random key of this one record: without the key it says nothing
about the content, not even whether two records had the same; with it, it proves the content. The label keeps
input, output and actor apart, so that one cannot be passed off as another.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from typing import Literal

from allod.clock import Clock

Label = Literal["input", "output", "actor"]

KEY_BYTES = 32
ID_CHARS = 28

_PREFIX: dict[Label, bytes] = {
    "input": b"allod-commitment/1 input\n",
    "output": b"allod-commitment/1 output\n",
    "actor": b"allod-commitment/1 actor\n",
}
_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_PAIRS = tuple(a + b for a in _CROCKFORD for b in _CROCKFORD)
_POOL_BYTES = 4096


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
    """ "r-" and 26 characters of Crockford base32: 48 bits of UTC milliseconds, 80 random bits."""
    n = (clock.now_us() // 1000 & 0xFFFFFFFFFFFF) << 80 | int.from_bytes(_pool.take(10), "big")
    pairs = _PAIRS
    return "r-" + "".join([pairs[n >> shift & 1023] for shift in range(120, -1, -10)])


def new_key() -> bytes:
    """A record key: 32 random bytes."""
    return _pool.take(KEY_BYTES)


def key_check(key: bytes) -> str:
    """What the leaf says of the key: its SHA-256, hex."""
    return hashlib.sha256(key).hexdigest()


def commit(key: bytes, label: Label, data: bytes) -> str:
    """The commitment to `data`, hex."""
    return hmac.digest(key, _PREFIX[label] + data, "sha256").hex()


class Commitment:
    """The same for content that arrives in pieces."""

    __slots__ = ("_hmac", "size")

    def __init__(self, key: bytes, label: Label) -> None:
        self._hmac = hmac.new(key, _PREFIX[label], "sha256")
        self.size = 0  # bytes so far

    def update(self, data: bytes | bytearray | memoryview) -> None:
        self._hmac.update(data)
        self.size += len(data)

    def hexdigest(self) -> str:
        return self._hmac.hexdigest()
