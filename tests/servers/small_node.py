"""A small node for tests: `NodePort` kept in memory, its calls going to a real process over a real socket.

`SmallNode` has two organisations, so that a test can show that one sees nothing of the other. `FrontDoor`
does what a front does with a request: it checks the key, removes internal headers, splices hot routes and
hands over the rest.
`serving(app)` runs an application under uvicorn on loopback; `engine(folder)` starts the scripted engine.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import uvicorn

from allod.api import wire
from allod.api.inner import InnerClient
from allod.api.ports import (
    Check,
    ExchangeView,
    Inner,
    InnerAnswer,
    KeyView,
    NewKey,
    NodeStatus,
    ProjectView,
    ReceiptFormat,
    ReceiptView,
    ServiceView,
    SiteView,
    Verification,
)
from allod.errors import NotFound, Unauthenticated
from allod.identity.caller import Caller, Role
from allod.ledger.statement import Statement, encode
from allod.models.fim import FimForm
from allod.policy.decision import Ask, DataClass
from allod.policy.explain import Explanation, FactLine, RuleLine, SiteExplanation

OPERATOR = Caller(key_id="local", organisation="acme", project="claims", role=Role.OWNER)
_PROCESSES: dict[Path, subprocess.Popen[bytes]] = {}
RECEIPT = "r-01JZZZZZZZZZZZZZZZZZZZZZZZ"
OTHERS_RECEIPT = "r-01JYYYYYYYYYYYYYYYYYYYYYYY"


def _service(model: str, kind: str, **more: Any) -> ServiceView:
    return ServiceView(
        model=model,
        kind=kind,
        context_tokens=2048,
        test_model=True,
        origin="scripted",
        replicas=(),
        **({"aliases": ()} | more),
    )


SERVICES = (
    _service("tiny", "chat", aliases=("devstral",)),
    _service("filler", "chat", fim=FimForm(prefix="[PRE]", suffix="[SUF]", suffix_first=True)),
    _service("vectors", "embed"),
)


def statement(receipt_id: str, organisation: str, project: str) -> Statement:
    return Statement(
        id=receipt_id,
        organisation=organisation,
        project=project,
        action="chat",
        actor="00",
        data_class="internal",
        decision="allow",
        endpoint="/v1/chat/completions",
        started_us=1,
        ended_us=2,
        input="00",
        input_bytes=1,
        output="00",
        output_bytes=1,
        key_check="00",
        model="tiny",
        origin="small.example",
        outcome="answered",
        policy="00",
        status=200,
    )


class SmallNode:
    """Implements `NodePort`. Its keys are `allod_<role>_s`, and `allod_other_s` elsewhere."""

    def __init__(self, sockets: list[Path]) -> None:
        self.inner = InnerClient(lambda: sockets)
        self.keys: dict[str, KeyView] = {}
        self.projects = {
            "claims": self._project("claims", "acme"),
            "risk": self._project("risk", "acme"),
            "rival": self._project("rival", "umbrella"),
        }
        self.statements = [
            statement(RECEIPT, "acme", "claims"),
            statement(OTHERS_RECEIPT, "umbrella", "rival"),
        ]
        self.erased: list[str] = []
        self.reloads = 0
        for role in Role:
            self._key(role.value, "claims", role)
        self._key("other", "rival", Role.OWNER)

    @staticmethod
    def _project(name: str, organisation: str) -> ProjectView:
        return ProjectView(
            id=name,
            organisation=organisation,
            default_class=DataClass.INTERNAL,
            floor_class=DataClass.PUBLIC,
            categories=(),
        )

    def _key(self, key_id: str, project: str, role: Role, label: str = "") -> KeyView:
        self.keys[key_id] = KeyView(
            key_id=key_id,
            label=label,
            project=project,
            organisation=self.projects[project].organisation,
            role=role,
            created_us=1,
            expires_us=2**60,
        )
        return self.keys[key_id]

    async def authenticate(self, presented: str) -> Caller:
        kind, _, rest = presented.partition("_")
        key = self.keys.get(rest.removesuffix("_s"))
        if kind != "allod" or key is None or key.revoked_us is not None:
            raise Unauthenticated("key.unknown", "this API key is not known here")
        return Caller(key_id=key.key_id, organisation=key.organisation, project=key.project, role=key.role)

    async def status(self) -> NodeStatus:
        return NodeStatus(
            origin="small.example",
            version="0",
            ready=True,
            started_us=1_700_000_000_000_000,
            listen="http://127.0.0.1:0",
            workers=1,
            ledger_size=len(self.statements),
            checkpoint_us=1,
            spooled=0,
            services=SERVICES,
            checks=(Check(name="small", ok=True, detail="in memory"),),
        )

    async def sites(self) -> list[SiteView]:
        return []

    async def explain(self, ask: Ask, language: str = "en") -> Explanation:
        allowed = ask.data_class < DataClass.RESTRICTED
        rule = RuleLine(
            id="small",
            effect="permit" if allowed else "forbid",
            reason={"fr": "Parce que.", "de": "Darum."}.get(language, "Because."),
            language=language,
            law="Art. 0",
            facts=("operator", "storage_countries", "transfer_basis"),
        )
        source = {"source": "contract 7", "date": "2026-11-01"}
        facts = (
            FactLine(name="operator", value="ACME", known=True, **source),
            FactLine(name="storage_countries", value="unknown", known=False),
            FactLine(
                name="transfer_basis",
                value="unknown",
                known=False,
                expired=True,
                expires="2026-11-20",
                **source,
            ),
        )
        here = SiteExplanation(site="here", local=False, allowed=allowed, rules=(rule,), facts=facts)
        return Explanation(ask=ask, policy="00", sites=(here,), valid_until_us=2**60)

    async def exchanges(
        self, *, organisation: str | None, project: str | None, limit: int, before: int | None = None
    ) -> list[ExchangeView]:
        found = [
            ExchangeView(index=at, statement=s)
            for at, s in enumerate(self.statements)
            if organisation in (None, s.organisation) and project in (None, s.project)
        ]
        return [view for view in reversed(found) if before is None or (view.index or 0) < before][:limit]

    async def receipt(self, receipt_id: str) -> ReceiptView:
        for at, found in enumerate(self.statements):
            if found.id == receipt_id:
                return ReceiptView(
                    index=at, statement=found, leaf=encode(found), proof="proof", checkpoint="checkpoint"
                )
        raise NotFound("receipt.unknown", "no such receipt")

    async def receipt_file(self, receipt_id: str, form: ReceiptFormat) -> bytes:
        return f"{form} of {receipt_id}".encode()

    async def verify_receipt(self, receipt_id: str) -> Verification:
        return Verification(ok=True, checks=(Check(name="inclusion", ok=True, detail=receipt_id),))

    async def erase_receipt_key(self, receipt_id: str, *, by: Caller) -> None:
        self.erased.append(receipt_id)

    async def checkpoint(self) -> bytes:
        return b"small.example\n2\n"

    async def ledger_file(self, path: str) -> bytes:
        if path != "tile/0/000.p/2":
            raise NotFound("ledger.path", "no such tile")
        return b"\0" * 64

    async def create_key(
        self, *, by: Caller, project: str, role: Role, label: str, lifetime_days: int
    ) -> NewKey:
        key_id = f"k{len(self.keys)}"
        return NewKey(key=self._key(key_id, project, role, label), secret=f"allod_{key_id}_s")

    async def list_keys(self, *, organisation: str | None) -> list[KeyView]:
        return [key for key in self.keys.values() if organisation in (None, key.organisation)]

    async def revoke_key(self, key_id: str, *, by: Caller) -> KeyView:
        kept = {name: getattr(self.keys[key_id], name) for name in KeyView.__struct_fields__}
        self.keys[key_id] = KeyView(**(kept | {"revoked_us": int(time.time() * 1e6)}))
        return self.keys[key_id]

    async def create_organisation(self, name: str, *, by: Caller) -> str:
        return name

    async def create_project(self, project: ProjectView, *, by: Caller) -> ProjectView:
        self.projects[project.id] = project
        return project

    async def list_projects(self, *, organisation: str | None) -> list[ProjectView]:
        return [p for p in self.projects.values() if organisation in (None, p.organisation)]

    async def call(self, inner: Inner) -> InnerAnswer:
        return await self.inner.call(inner)

    async def reload(self) -> int:
        self.reloads += 1
        return self.reloads


class FrontDoor:
    """An ASGI application that treats a request as a front does; `app` is the control process's."""

    HOT = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings")

    def __init__(self, node: SmallNode, app: Any) -> None:
        self.node, self.app = node, app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            kept = [(k, v) for k, v in scope["headers"] if not k.startswith(b"allod-internal-")]
            headers = dict(kept)
            presented = headers.get(b"authorization", b"").decode().removeprefix("Bearer ")
            if presented:
                with contextlib.suppress(Unauthenticated):
                    caller = await self.node.authenticate(presented)
                    kept.append((wire.CALLER_HEADER.encode(), wire.encode_caller(caller).encode()))
            scope = scope | {"headers": kept}
            agent = headers.get(b"user-agent", b"")
            hot = scope["method"] == "POST" and scope["path"] in self.HOT
            if hot and not agent.startswith(b"mistral-client"):
                await self._splice(scope, receive, send, presented)
                return
        await self.app(scope, receive, send)

    async def _splice(self, scope: Any, receive: Any, send: Any, presented: str) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        caller = await self.node.authenticate(presented)
        answer = await self.node.call(Inner(caller=caller, path=scope["path"], body=body))
        names = ("content-type", "retry-after", "allod-receipt", "allod-site")
        headers = [(n.encode(), answer.headers[n].encode()) for n in names if n in answer.headers]
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        async for piece in answer:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


@contextlib.asynccontextmanager
async def serving(app: Any) -> AsyncIterator[str]:
    """Runs `app` on loopback and yields its URL."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical", lifespan="off"))
    running = asyncio.create_task(server.serve([listener]))
    while not server.started:
        await asyncio.sleep(0.005)
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        server.force_exit = True
        await running
        listener.close()


@contextlib.contextmanager
def engine(folder: Path) -> Iterator[Path]:
    """Starts the scripted engine as its own process; yields its socket."""
    path = folder / "front-0.sock"
    program = Path(__file__).with_name("scripted_engine.py")
    process = _PROCESSES[path] = subprocess.Popen([sys.executable, str(program), str(path)])
    try:
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(path)), base_url="http://engine") as client:
            for _ in range(400):
                with contextlib.suppress(httpx.TransportError):
                    client.get("/seen")
                    break
                assert process.poll() is None, "the scripted engine ended"
                time.sleep(0.025)
        yield path
    finally:
        process.terminate()
        process.wait(10)
        del _PROCESSES[path]


def end(path: Path, how: int) -> None:
    """Sends a signal to the scripted engine that listens on `path`."""
    os.kill(_PROCESSES[path].pid, how)


def seen(path: Path) -> dict[str, Any]:
    """What the scripted engine was asked."""
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(path)), base_url="http://engine") as client:
        found: dict[str, Any] = client.get("/seen").json()
        return found
