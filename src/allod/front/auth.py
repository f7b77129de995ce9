"""Who is asking: an API key against the snapshot. Nothing here is ever logged.

The snapshot has the SHA-256 of each key's secret. Comparison takes constant time, also for a key id that does
not exist. A worker remembers what it has verified until the next snapshot, so a
revoked key is refused from the moment its snapshot is in.
"""

from __future__ import annotations

import base64
import binascii

import msgspec

from allod import limits
from allod.errors import Unauthenticated
from allod.front.problems import Problem
from allod.front.snapshot import KeyEntry, ProjectEntry, Snapshot
from allod.identity import keys
from allod.identity.caller import Caller, Role
from allod.policy.decision import CATEGORIES, DataClass

_NO_DIGEST = bytes(32)
_ROTATE = "Ask for a key: allod key create"


class Identity:
    """A caller with its project, and the forms of it that the path writes."""

    __slots__ = ("actor", "caller", "expires_us", "header", "project", "scope")

    def __init__(self, caller: Caller, project: ProjectEntry, expires_us: int) -> None:
        self.caller = caller
        self.project = project
        self.expires_us = expires_us
        self.actor = caller.key_id.encode()
        self.scope = (caller.project, caller.role.value)  # what a decision depends on
        self.header = base64.urlsafe_b64encode(msgspec.json.encode(caller))


class Keyring:
    """The keys of one snapshot."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._keys = snapshot.keys
        self._projects = snapshot.projects
        self._seen: dict[bytes, Identity] = {}  # by what was presented as a key
        self._vouched: dict[bytes, Identity] = {}  # by control's header, which must never pass for a key

    def identify(self, fields: dict[bytes, bytes], now_us: int) -> Identity | None:
        """The caller, or None where no key was presented.

        Raises Problem 401: `key.malformed`, `key.unknown`, `key.expired`.
        """
        presented = fields.get(b"authorization")
        if presented is None:
            presented = fields.get(b"x-api-key")
            if presented is None:
                return None
        identity = self._seen.get(presented)
        if identity is None:
            identity = self._verify(presented)
            if identity is None:
                return None
            if len(self._seen) < limits.FRONT_CACHE_ENTRIES_MAX:
                self._seen[presented] = identity
        if now_us >= identity.expires_us:
            raise Problem(401, "key.expired", "this API key has expired", hint=_ROTATE)
        return identity

    def inner(self, header: bytes) -> Identity:
        """The caller that control vouches for on the internal socket. Raises Problem 401
        `caller.malformed`.
        """
        identity = self._vouched.get(header)
        if identity is not None:
            return identity
        try:
            text = header + b"=" * (-len(header) % 4)
            caller = msgspec.json.decode(base64.urlsafe_b64decode(text), type=Caller)
        except (binascii.Error, ValueError, msgspec.DecodeError) as e:
            raise Problem(401, "caller.malformed", "the internal caller header cannot be read") from e
        project = self._projects.get(caller.project)
        if project is None:
            raise Problem(401, "caller.unknown-project", "the internal caller names no project of this node")
        identity = Identity(caller, project, 1 << 63)
        if len(self._vouched) < limits.FRONT_CACHE_ENTRIES_MAX:
            self._vouched[header] = identity
        return identity

    def _verify(self, presented: bytes) -> Identity | None:
        scheme, space, token = presented.partition(b" ")
        if not space:
            token = scheme
        elif scheme.lower() != b"bearer":
            return None  # another scheme is not a key; what needs one says so
        try:
            key_id, secret = keys.parse(token.strip().decode("latin-1"))
        except Unauthenticated as e:
            raise Problem.of(e) from None
        entry = self._keys.get(key_id)
        same = keys.matches(secret, entry.secret_sha256 if entry else _NO_DIGEST)
        project = self._projects.get(entry.project) if entry else None
        if not same or entry is None or project is None:
            raise Problem(
                401, "key.unknown", "this API key is not known here, or has been revoked", hint=_ROTATE
            )
        return Identity(_caller(entry, project), project, entry.expires_us)


def missing() -> Problem:
    return Problem(
        401,
        "key.missing",
        "this route needs an API key",
        hint="Send Authorization: Bearer allod_<key id>_<secret>",
    )


def carried(project: ProjectEntry, fields: dict[bytes, bytes]) -> tuple[DataClass, frozenset[str]]:
    """The class and categories that the request carries: never below the project's floor.

    Raises Problem 400 `class.unknown`, `category.unknown`.
    """
    named = fields.get(b"allod-data-class")
    extra = fields.get(b"allod-data-categories")
    data_class = project.default_class
    if named:
        try:
            data_class = DataClass[named.decode("latin-1").strip().upper()]
        except KeyError:
            known = ", ".join(c.label for c in DataClass)
            text = named.decode("latin-1")[:40]
            raise Problem(
                400, "class.unknown", f"there is no data class {text!r}", hint=f"Use one of: {known}"
            ) from None
    data_class = max(data_class, project.floor_class)
    if not extra:
        return data_class, project.categories
    asked = {word.strip().lower() for word in extra.decode("latin-1").split(",")} - {""}
    unknown = sorted(asked - CATEGORIES)
    if unknown:
        raise Problem(
            400,
            "category.unknown",
            f"there is no data category {unknown[0][:40]!r}",
            hint=f"Use some of: {', '.join(sorted(CATEGORIES))}",
        )
    return data_class, project.categories | asked


def _caller(key: KeyEntry, project: ProjectEntry) -> Caller:
    return Caller(
        key_id=key.key_id, organisation=project.organisation, project=project.id, role=Role(key.role)
    )
