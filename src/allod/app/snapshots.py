"""Building, writing and reading the snapshot that the fronts decide by.

Everything a front needs is in one value; it is replaced whole by an atomic rename, so a front sees the old
one or the new one. Nothing here asks the database or the network: `build` is pure.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from allod.errors import Integrity
from allod.front.snapshot import KeyEntry, ProjectEntry, ServiceEntry, Snapshot
from allod.identity.rows import KeyRow, ProjectRow
from allod.policy.decision import DataClass
from allod.policy.pack import Pack
from allod.sites.facts import Site


def build(
    *,
    version: int,
    origin: str,
    keys: Sequence[KeyRow],
    projects: Sequence[ProjectRow],
    sites: Mapping[str, Site],
    services: Mapping[str, ServiceEntry],
    policy: Pack,
) -> Snapshot:
    return Snapshot(
        version=version,
        origin=origin,
        keys={k.key_id: _key(k) for k in keys},
        projects={p.id: _project(p) for p in projects},
        sites=dict(sites),
        services=dict(services),
        policy_text=policy.text,
        policy_schema=policy.schema,
    )


def write(path: Path, snapshot: Snapshot) -> None:
    """Mode 0600: it holds key hashes. Raises OSError."""
    half = path.with_name(f".{path.name}.{os.getpid()}")
    fd = os.open(half, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(fd, "wb") as f:
        f.write(msgspec.msgpack.encode(snapshot))
        f.flush()
        os.fsync(f.fileno())
    half.replace(path)


def read(path: Path) -> Snapshot | None:
    """The snapshot that is in force; None where none was ever written. Integrity `snapshot.damaged`."""
    try:
        return msgspec.msgpack.decode(path.read_bytes(), type=Snapshot)
    except FileNotFoundError:
        return None
    except msgspec.MsgspecError as e:
        raise Integrity(
            "snapshot.damaged", f"{path} cannot be read", hint="it is written anew at the next `allod up`"
        ) from e


def rows_of(snapshot: Snapshot) -> tuple[list[KeyRow], list[ProjectRow]]:
    """The keys and projects of a snapshot, for building the next one while the database is away."""
    keys = [
        KeyRow(
            key_id=k.key_id,
            secret_sha256=k.secret_sha256,
            project=k.project,
            role=k.role,
            expires_us=k.expires_us,
        )
        for k in snapshot.keys.values()
    ]
    projects = [
        ProjectRow(
            id=p.id,
            organisation=p.organisation,
            default_class=int(p.default_class),
            floor_class=int(p.floor_class),
            categories=p.categories,
        )
        for p in snapshot.projects.values()
    ]
    return keys, projects


def _key(row: KeyRow) -> KeyEntry:
    return KeyEntry(
        key_id=row.key_id,
        secret_sha256=row.secret_sha256,
        project=row.project,
        role=row.role,
        expires_us=row.expires_us,
    )


def _project(row: ProjectRow) -> ProjectEntry:
    return ProjectEntry(
        id=row.id,
        organisation=row.organisation,
        default_class=DataClass(row.default_class),
        floor_class=DataClass(row.floor_class),
        categories=row.categories,
    )
