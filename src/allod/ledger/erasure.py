"""The leaf that says that a record key was destroyed (GDPR Art. 17), and telling leaf kinds apart.

Erasing does not change the tree: the erased leaf stays and proves what it proved, but its commitments can no
longer be opened by anyone. That the key is gone is itself an event, with a leaf of its own.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from allod.ledger import statement
from allod.ledger.statement import Statement

VERSION: Literal["allod-erasure/1"] = "allod-erasure/1"


class Erasure(msgspec.Struct, frozen=True, kw_only=True):
    """One JSON leaf, sorted keys, integers and text only, as a `Statement`."""

    actor: str  # commitment (hex) to the id of who asked, under this leaf's own key
    erased: str  # id of the record whose key was destroyed
    ended_us: int
    id: str  # of this leaf
    key_check: str
    organisation: str  # of the erased record
    origin: str
    project: str  # of the erased record
    v: Literal["allod-erasure/1"] = VERSION


class _Kind(msgspec.Struct):
    v: str
    id: str


_ENCODER = msgspec.json.Encoder(order="sorted")
_ERASURE = msgspec.json.Decoder(Erasure)
_KIND = msgspec.json.Decoder(_Kind)


def encode(erasure: Erasure) -> bytes:
    return _ENCODER.encode(erasure)


def read_leaf(leaf: bytes) -> Statement | Erasure:
    """Either kind. Raises msgspec.MsgspecError on anything else."""
    try:
        if _KIND.decode(leaf).v == VERSION:
            return _ERASURE.decode(leaf)
        return statement.decode(leaf)
    except UnicodeDecodeError as e:  # msgspec lets this one through
        raise msgspec.DecodeError("not UTF-8") from e


def leaf_id(leaf: bytes) -> str:
    """The id that every kind of leaf has. Raises msgspec.MsgspecError."""
    return _KIND.decode(leaf).id
