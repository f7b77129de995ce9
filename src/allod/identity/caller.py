"""Who is asking. Pure values; the store that hands them out is `identity.store`."""

from __future__ import annotations

from enum import StrEnum

import msgspec


class Role(StrEnum):
    """What a key may do. A key has exactly one role; each includes what stands below it."""

    OWNER = "owner"  # everything, for the whole organisation, including other owners
    ADMIN = "admin"  # projects, keys, sites of the organisation
    AUDITOR = "auditor"  # reads receipts and policy of the whole organisation; calls no model
    DEVELOPER = "developer"  # calls models within its project, reads the project's receipts
    SERVICE = "service"  # calls models within its project, nothing else


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """An authenticated caller, as every later stage sees it."""

    key_id: str  # the visible prefix of the API key; "local" for the node's own operator on its admin socket
    organisation: str
    project: str
    role: Role
