"""What the faces may ask of a node, and the values it answers with.

`app.App` implements `NodePort`; `api` (admin, dialects) and `console` are written against it, so a test can
hand them a smaller node. Every method raises the errors of `allod.errors`; none leaks another library's.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Literal, Protocol

import msgspec

from allod.identity.caller import Caller, Role
from allod.ledger.statement import Statement
from allod.models.fim import FimForm
from allod.models.lineage import Lineage
from allod.models.manifest import ModelManifest
from allod.models.oms import Signed
from allod.policy.decision import Ask, DataClass
from allod.policy.explain import Explanation
from allod.sites.facts import Site


class ReplicaView(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    site: str
    state: str  # starting | ready | unhealthy | stopped | failed
    engine: str
    engine_digest: str
    model_digest: str
    sealed: bool
    pid: int | None = None
    rss_bytes: int | None = None
    restarts: int = 0
    reason: str = ""  # why it is not ready, for people


class ServiceView(msgspec.Struct, frozen=True, kw_only=True):
    model: str
    kind: str
    aliases: tuple[str, ...]
    context_tokens: int | None
    test_model: bool
    origin: str  # who made it, from which country, under which licence; "unknown" where unknown
    replicas: tuple[ReplicaView, ...]
    fim: FimForm | None = None  # None: the model cannot fill gaps, so a suffix is refused rather than ignored
    vision: bool = False  # whether image parts of a message are understood


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a readiness report, a doctor report or a verification."""

    name: str
    ok: bool
    detail: str
    hint: str = ""


class NodeStatus(msgspec.Struct, frozen=True, kw_only=True):
    origin: str
    version: str
    ready: bool
    started_us: int
    listen: str  # "http://127.0.0.1:8080"
    workers: int
    ledger_size: int
    checkpoint_us: int
    spooled: int  # receipts on disk that wait for their place in the tree
    services: tuple[ServiceView, ...]
    checks: tuple[Check, ...]


class SiteView(msgspec.Struct, frozen=True, kw_only=True):
    site: Site
    services: tuple[str, ...]
    health: str  # ok | open-circuit | unknown
    may: dict[str, bool]  # data class label -> whether the policy lets a plain chat of that class go there
    why_not: dict[str, tuple[str, ...]]  # data class label -> reasons, where `may` is False


class ExchangeView(msgspec.Struct, frozen=True, kw_only=True):
    index: int | None  # place in the ledger; None while it waits
    statement: Statement


class ReceiptView(msgspec.Struct, frozen=True, kw_only=True):
    index: int
    statement: Statement
    leaf: bytes  # the very bytes that were logged (JSON of the statement)
    proof: str  # C2SP tlog-proof text
    checkpoint: str  # the signed note the proof leads to


class Verification(msgspec.Struct, frozen=True, kw_only=True):
    ok: bool
    checks: tuple[Check, ...]


class KeyView(msgspec.Struct, frozen=True, kw_only=True):
    key_id: str
    label: str
    project: str
    organisation: str
    role: Role
    created_us: int
    expires_us: int
    revoked_us: int | None = None


class NewKey(msgspec.Struct, frozen=True, kw_only=True):
    key: KeyView
    secret: str  # the whole API key; shown once, stored nowhere


class ProjectView(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    organisation: str
    default_class: DataClass
    floor_class: DataClass
    categories: tuple[str, ...]


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """What one service tells its model before anybody asks it something."""

    service: str
    digest: str  # as receipts have it in `instructions`; empty where nothing is known
    reference: str  # NAME@VERSION of the system prompt; empty where there is none
    system_prompt: str


class ModelPapersView(msgspec.Struct, frozen=True, kw_only=True):
    """Where a model comes from, who vouches for it, and what it is told."""

    manifest: ModelManifest
    lineage: Lineage
    lineage_stated: bool  # False: nobody wrote down how it was made
    signed: Signed | None
    refusal: str  # why it is not served, where it is not
    publisher: str  # whose own signature came with it and counts here
    chat_template: str  # digest; empty where it carries none
    sizes: dict[str, int]  # bytes by file name
    told: tuple[Told, ...]


class Inner(msgspec.Struct, frozen=True, kw_only=True):
    """A call made inside the node on behalf of a caller: it takes the whole path and has its own receipt."""

    caller: Caller
    path: str  # a hot route, e.g. "/v1/chat/completions"
    body: bytes
    content_type: str = "application/json"
    data_class: str = ""  # header values as the client sent them
    data_categories: str = ""
    parent: str = ""  # receipt id of the outer exchange


class InnerAnswer(Protocol):
    status: int
    headers: dict[str, str]  # lower-case names; has "allod-receipt" and "allod-site"

    def __aiter__(self) -> AsyncIterator[bytes]: ...
    async def read(self) -> bytes: ...
    async def aclose(self) -> None:
        """Leaving early cancels the exchange all the way to the engine."""
        ...


ReceiptFormat = Literal["tlog-proof", "cose", "json"]


class NodePort(Protocol):
    async def status(self) -> NodeStatus: ...
    async def sites(self) -> list[SiteView]: ...
    async def explain(self, ask: Ask, language: str = "en") -> Explanation:
        """The decision over the sites that serve the model, with the facts that mattered. NotFound."""
        ...

    async def model_papers(self, name: str) -> ModelPapersView:
        """By the name of a service or an installed model. NotFound `model.not-found`."""
        ...

    async def exchanges(
        self, *, organisation: str | None, project: str | None, limit: int, before: int | None = None
    ) -> list[ExchangeView]: ...
    async def receipt(self, receipt_id: str) -> ReceiptView:
        """Waits up to a second for a receipt that is durable but not yet in the tree. NotFound, NotReady."""
        ...

    async def receipt_file(self, receipt_id: str, form: ReceiptFormat) -> bytes: ...
    async def verify_receipt(self, receipt_id: str) -> Verification: ...
    async def erase_receipt_key(self, receipt_id: str, *, by: Caller) -> None:
        """Destroys the record key (GDPR Art. 17) and logs that it was done."""
        ...

    async def checkpoint(self) -> bytes: ...
    async def ledger_file(self, path: str) -> bytes:
        """A tile by its C2SP tlog-tiles path, e.g. "tile/0/000" or "tile/entries/x001/234.p/5". NotFound."""
        ...

    async def create_key(
        self, *, by: Caller, project: str, role: Role, label: str, lifetime_days: int
    ) -> NewKey: ...
    async def list_keys(self, *, organisation: str | None) -> list[KeyView]: ...
    async def revoke_key(self, key_id: str, *, by: Caller) -> KeyView:
        """Returns once every connected front worker refuses the key."""
        ...

    async def create_organisation(self, name: str, *, by: Caller) -> str: ...
    async def create_project(self, project: ProjectView, *, by: Caller) -> ProjectView: ...
    async def list_projects(self, *, organisation: str | None) -> list[ProjectView]: ...
    async def authenticate(self, presented: str) -> Caller: ...
    async def caller(self, key_id: str) -> Caller:
        """Who the key is at this moment; sessions ask it on each request. Unauthenticated where the key is
        unknown, expired or revoked."""
        ...

    async def call(self, inner: Inner) -> InnerAnswer: ...
    async def reload(self) -> int:
        """Reads policy and site files again. Returns the new snapshot's version; on error the old stays."""
        ...
