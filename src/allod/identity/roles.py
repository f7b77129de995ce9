"""Who may administer what. Pure functions over the caller and the target; no role is taken on trust.

1. Nobody makes a key with a role above their own.
2. Owners and administrators act in their own organisation; the node's operator in all of them.
3. Only the operator makes organisations.
4. An administrator does not revoke an owner's key. Everyone may revoke their own key.
5. The last usable owner key of an organisation is revoked by the operator only: a slip would lock it out.
6. Auditors see every key of their organisation, developers those of their project, services none.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from allod.errors import Denied
from allod.identity.caller import Caller, Role

OPERATOR = "local"  # key id of the node's operator, who comes in over the admin socket

Deed = Literal[
    "key.create", "key.list", "key.revoke", "project.create", "project.list", "organisation.create"
]

_RANK = {Role.OWNER: 3, Role.ADMIN: 2, Role.AUDITOR: 1, Role.DEVELOPER: 1, Role.SERVICE: 0}
_ADMINISTERS = (Role.OWNER, Role.ADMIN)


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """What a deed is done to; only the fields that its deed knows are set."""

    organisation: str = ""
    project: str = ""
    role: Role | None = None  # of the key that is made or revoked
    key_id: str = ""
    last_owner: bool = False  # it is the only usable owner key of its organisation


class Ruling(msgspec.Struct, frozen=True, kw_only=True):
    allowed: bool
    why: str = ""  # for people, where it is refused


_YES = Ruling(allowed=True)


def may(actor: Caller, deed: Deed, target: Target) -> Ruling:
    """Whether the actor may do this to that."""
    if actor.key_id == OPERATOR:
        return _YES
    if deed == "organisation.create":
        return _no("only the node's operator makes organisations, on the machine itself")
    if target.organisation != actor.organisation:
        return _no(f"{target.organisation!r} is another organisation")
    match deed:
        case "key.create":
            return _may_create(actor, target)
        case "key.revoke":
            return _may_revoke(actor, target)
        case "key.list" | "project.list":
            return _may_list(actor, target)
        case "project.create":
            return _YES if actor.role in _ADMINISTERS else _no(_needs_admin(actor))


def require(actor: Caller, deed: Deed, target: Target) -> None:
    """Raises Denied `role.denied` with the reason of `may`."""
    ruling = may(actor, deed, target)
    if not ruling.allowed:
        raise Denied(
            "role.denied", f"{deed} is refused: {ruling.why}", hint="ask an owner, or use a key that may"
        )


def _may_create(actor: Caller, target: Target) -> Ruling:
    if actor.role not in _ADMINISTERS:
        return _no(_needs_admin(actor))
    if target.role is None or _RANK[target.role] > _RANK[actor.role]:
        return _no(f"the role {actor.role.value!r} makes no key with a role above its own")
    return _YES


def _may_revoke(actor: Caller, target: Target) -> Ruling:
    if target.last_owner:
        return _no("it is the last usable owner key of its organisation; the node's operator may revoke it")
    if target.key_id == actor.key_id:
        return _YES
    if actor.role not in _ADMINISTERS:
        return _no(_needs_admin(actor))
    if target.role is None or _RANK[target.role] > _RANK[actor.role]:
        return _no(f"the role {actor.role.value!r} revokes no key with a role above its own")
    return _YES


def _may_list(actor: Caller, target: Target) -> Ruling:
    if actor.role in (*_ADMINISTERS, Role.AUDITOR):
        return _YES
    if actor.role is Role.DEVELOPER and target.project == actor.project:
        return _YES
    return _no(f"the role {actor.role.value!r} does not see this")


def _needs_admin(actor: Caller) -> str:
    return f"it takes an owner or administrator, and this key is of the role {actor.role.value!r}"


def _no(why: str) -> Ruling:
    return Ruling(allowed=False, why=why)
