"""Canonical JSON (RFC 8785), for everything that is hashed or signed as JSON."""

from __future__ import annotations

from typing import Any

import rfc8785

from allod.errors import Unprocessable


def dumps(value: Any) -> bytes:
    """RFC 8785 bytes of a JSON value. Unprocessable on what JSON cannot carry (NaN, bytes, huge ints)."""
    try:
        return rfc8785.dumps(value)
    except (rfc8785.CanonicalizationError, ValueError, TypeError) as e:
        raise Unprocessable("canonical.not-json", "the value has no canonical JSON form") from e
