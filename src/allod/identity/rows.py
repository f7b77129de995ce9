"""What the store hands out. Plain values; the layers above map them to their own."""

from __future__ import annotations

import msgspec

from allod.identity.caller import Role


class KeyRow(msgspec.Struct, frozen=True, kw_only=True):
    """A key as a front worker needs it; never a revoked one. An expired one is in, to be refused by name."""

    key_id: str
    secret_sha256: bytes  # 32 bytes
    project: str
    role: Role
    expires_us: int


class ProjectRow(msgspec.Struct, frozen=True, kw_only=True):
    """A project. Classes are 0 public, 1 internal, 2 confidential, 3 restricted."""

    id: str
    organisation: str
    default_class: int
    floor_class: int
    categories: frozenset[str] = frozenset()


class KeyInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A key as people see it."""

    key_id: str
    label: str
    project: str
    organisation: str
    role: Role
    created_us: int
    expires_us: int
    created_by: str  # key id; "local" for the node's operator; "bootstrap" for the first key of all
    revoked_us: int | None = None


class NewKey(msgspec.Struct, frozen=True, kw_only=True):
    key: KeyInfo
    secret: str  # the whole API key; shown once, stored nowhere


class Act(msgspec.Struct, frozen=True, kw_only=True):
    """One administrative act, as the audit table keeps it."""

    at_us: int
    by: str  # key id, "local" or "bootstrap"
    act: str  # key.create | key.revoke | project.create | organisation.create | bootstrap
    target: str
    detail: str
