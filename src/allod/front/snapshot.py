"""What a front worker knows: one immutable value, replaced whole.

The control process builds it, writes it to `run/snapshot.msgpack` and announces its version on the fronts'
channel; a worker that starts while the control process is down reads the file. Without a snapshot the
front answers 503: never open, never closed for good.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from allod.identity.caller import Role
from allod.policy.decision import DataClass
from allod.sites.facts import Site

Kind = Literal["chat", "embed", "ocr"]


class KeyEntry(msgspec.Struct, frozen=True, kw_only=True):
    key_id: str
    secret_sha256: bytes  # 32 bytes; the secret has 256 bits of entropy, so a plain hash is enough
    project: str
    role: Role
    expires_us: int


class ProjectEntry(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    organisation: str
    default_class: DataClass
    floor_class: DataClass
    categories: frozenset[str] = frozenset()  # carried by every request of the project


class ReplicaEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One running copy, behind a Unix socket that speaks HTTP/1.1. Remote providers are reached the same
    way: their egress process listens on the socket."""

    id: str
    site: str
    socket: str  # absolute path
    upstream_model: (
        str  # what to write into the body's "model"; equal to the service name where nothing changes
    )
    engine: str  # e.g. "llama.cpp/xllamacpp 2026.10.11549"
    engine_digest: str
    model_digest: str
    quantisation: str = ""
    active_watts: float | None = None  # configured draw of the machine while this replica works
    choices_max: int = 1  # the largest `n` for which the engine's usage counts every choice


class ServiceEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A served model: its replicas in order of preference. Policy filters; it never reorders across a no."""

    model: str
    kind: Kind
    replicas: tuple[ReplicaEntry, ...]
    aliases: tuple[str, ...] = ()
    context_tokens: int | None = None
    test_model: bool = False
    owned_by: str = "allod"
    system_prompt: str = ""  # put before every conversation
    instructions: dict[str, str] = {}  # replica id -> digest of the system prompt and chat template in force


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    version: int
    origin: str  # the ledger's origin: the node's name in every receipt
    keys: dict[str, KeyEntry]
    projects: dict[str, ProjectEntry]
    sites: dict[str, Site]
    services: dict[str, ServiceEntry]
    policy_text: str
    policy_schema: str
