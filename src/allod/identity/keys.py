"""API keys: `allod_<key id>_<secret>`. Made from the system's randomness, parsed strictly, kept as a hash.

    key id   12 characters of lower-case base32 (60 bits): the visible prefix, what people and receipts name
    secret   43 characters of base64url (256 bits): shown once, stored nowhere

What is stored is the SHA-256 of the secret's text. A slow hash is for guessable secrets; this has 256 bits.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets

import msgspec

from allod.errors import Unauthenticated

_FORM = re.compile(r"allod_([a-z2-7]{12})_([A-Za-z0-9_-]{43})")


class FreshKey(msgspec.Struct, frozen=True, kw_only=True):
    """A key that nobody has seen yet."""

    key_id: str
    text: str  # the whole key
    secret_sha256: bytes  # 32 bytes


def create() -> FreshKey:
    key_id = base64.b32encode(secrets.token_bytes(8)).decode("ascii").lower()[:12]
    secret = secrets.token_urlsafe(32)
    return FreshKey(key_id=key_id, text=f"allod_{key_id}_{secret}", secret_sha256=hash_secret(secret))


def parse(presented: str) -> tuple[str, str]:
    """(key id, secret). Unauthenticated `key.malformed`; the message never repeats what was presented."""
    found = _FORM.fullmatch(presented)
    if found is None:
        raise Unauthenticated(
            "key.malformed",
            "the API key does not have the form allod_<key id>_<secret>",
            hint="send the key exactly as it was shown when it was made",
        )
    return found[1], found[2]


def hash_secret(secret: str) -> bytes:
    """The 32 bytes that are stored."""
    return hashlib.sha256(secret.encode("ascii")).digest()


def matches(secret: str, secret_sha256: bytes) -> bool:
    """In constant time."""
    return hmac.compare_digest(hash_secret(secret), secret_sha256)
