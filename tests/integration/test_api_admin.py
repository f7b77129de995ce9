"""The administrative API: who may see and change what, strict bodies, its own OpenAPI document."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import hypothesis
import msgspec
import pytest
import schemathesis
import small_node
from schemathesis.core.failures import FailureGroup
from small_node import OTHERS_RECEIPT, RECEIPT

from allod.api import ports, wire
from allod.api.apps import admin_app, public_app
from allod.policy.explain import Explanation

EVERYONE = ("owner", "admin", "auditor", "developer", "service", "other")


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with small_node.engine(tmp_path_factory.mktemp("run")) as path:
        yield path


@pytest.fixture
def node(engine: Path) -> small_node.SmallNode:
    return small_node.SmallNode([engine])


@pytest.fixture
async def web(node: small_node.SmallNode) -> AsyncIterator[httpx.AsyncClient]:
    async with (
        small_node.serving(small_node.FrontDoor(node, public_app(node))) as url,
        httpx.AsyncClient(base_url=url) as client,
    ):
        yield client


@pytest.fixture
async def operator(node: small_node.SmallNode) -> AsyncIterator[httpx.AsyncClient]:
    async with (
        small_node.serving(admin_app(node, small_node.OPERATOR)) as url,
        httpx.AsyncClient(base_url=url) as client,
    ):
        yield client


def key(name: str) -> dict[str, str]:
    return {"authorization": f"Bearer allod_{name}_s"}


NEW_KEY = {"project": "claims", "role": "service", "label": "ci"}
NEW_PROJECT = {"id": "fresh", "default_class": "internal", "floor_class": "internal"}
ALLOWED: list[tuple[str, str, Any, set[str]]] = [
    ("GET", "/status", None, {"owner", "admin", "auditor", "developer", "other"}),
    ("GET", "/sites", None, {"owner", "admin", "auditor", "developer", "other"}),
    ("POST", "/reload", None, {"owner", "admin", "other"}),
    ("POST", "/keys", NEW_KEY, {"owner", "admin"}),
    ("POST", "/keys", NEW_KEY | {"role": "owner"}, {"owner"}),
    ("DELETE", "/keys/service", None, {"owner", "admin", "service"}),
    ("DELETE", "/keys/owner", None, {"owner"}),
    ("POST", "/projects", NEW_PROJECT, {"owner", "admin", "other"}),
    ("POST", "/projects", NEW_PROJECT | {"organisation": "acme"}, {"owner", "admin"}),
    ("POST", "/organisations", {"name": "third"}, set()),
    ("GET", f"/receipts/{RECEIPT}", None, {"owner", "admin", "auditor", "developer"}),
    ("GET", f"/receipts/{RECEIPT}/file?form=cose", None, {"owner", "admin", "auditor", "developer"}),
    ("POST", f"/receipts/{RECEIPT}/verify", None, {"owner", "admin", "auditor", "developer"}),
    ("DELETE", f"/receipts/{RECEIPT}/key", None, {"owner", "admin"}),
    ("GET", f"/receipts/{OTHERS_RECEIPT}", None, {"other"}),
    ("GET", "/checkpoint", None, {"owner", "admin", "auditor", "other"}),
]


@pytest.mark.parametrize(("method", "path", "body", "may"), ALLOWED)
async def test_roles(engine: Path, method: str, path: str, body: Any, may: set[str]) -> None:
    allowed = set()
    for name in EVERYONE:
        node = small_node.SmallNode([engine])
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(small_node.FrontDoor(node, public_app(node))),
            base_url="http://node",
        ) as web:
            answer = await web.request(method, f"/admin/v1{path}", json=body, headers=key(name))
            assert answer.status_code in (200, 201, 403, 404), answer.text
            if answer.status_code < 300:
                allowed.add(name)
            else:
                assert answer.json()["error"]["code"]
            assert (await web.request(method, f"/admin/v1{path}", json=body)).status_code == 401
    assert allowed == may


async def test_lists_hold_only_what_the_caller_may_see(web: httpx.AsyncClient) -> None:
    async def listed(path: str, name: str, field: str) -> set[str]:
        answer = await web.get(f"/admin/v1/{path}", headers=key(name))
        return {row.get(field) or row["statement"][field] for row in answer.json()}

    assert await listed("projects", "auditor", "id") == {"claims", "risk"}
    assert await listed("projects", "developer", "id") == {"claims"}
    assert await listed("projects", "other", "id") == {"rival"}
    assert await listed("keys", "other", "key_id") == {"other"}
    assert await listed("exchanges", "admin", "organisation") == {"acme"}
    assert (await web.get("/admin/v1/exchanges?project=risk", headers=key("developer"))).status_code == 404


async def test_another_organisation_is_as_absent_as_nothing(web: httpx.AsyncClient) -> None:
    theirs = await web.get(f"/v1/receipts/{OTHERS_RECEIPT}", headers=key("owner"))
    nothing = await web.get(f"/v1/receipts/{'r-' + '0' * 26}", headers=key("owner"))
    assert theirs.status_code == nothing.status_code == 404
    assert theirs.json()["error"]["code"] == nothing.json()["error"]["code"]
    key_of_theirs = await web.delete("/admin/v1/keys/other", headers=key("owner"))
    assert key_of_theirs.status_code == 404


async def test_a_caller_header_cannot_claim_to_be_the_operator(node: small_node.SmallNode) -> None:
    headers = {wire.CALLER_HEADER: wire.encode_caller(small_node.OPERATOR)}
    transport = httpx.ASGITransport(public_app(node))
    async with httpx.AsyncClient(transport=transport, base_url="http://node", headers=headers) as web:
        assert (await web.get("/admin/v1/keys")).status_code == 403
        for broken in ("%%%", "bm90IGpzb24=", "e30="):
            answer = await web.get("/admin/v1/keys", headers={wire.CALLER_HEADER: broken})
            assert answer.status_code == 401


async def test_bodies_are_strict(web: httpx.AsyncClient) -> None:
    async def problem(body: Any) -> dict[str, Any]:
        sent = body if isinstance(body, bytes) else msgspec.json.encode(body)
        answer = await web.post("/admin/v1/keys", content=sent, headers=key("owner"))
        found: dict[str, Any] = answer.json()["error"] | {"status": answer.status_code}
        return found

    typo = await problem(NEW_KEY | {"lifetime_day": 3})
    assert (typo["status"], typo["hint"]) == (400, "did you mean 'lifetime_days'?")
    assert (await problem(NEW_KEY | {"lifetime_days": 0}))["status"] == 400
    assert (await problem({"project": "claims"}))["details"]["field"] == "role"
    for nonsense in (b"", b"\xff\xfe", b"{", b"[" * 100_000):
        assert (await problem(nonsense))["status"] in (400, 413)
    assert (await problem(b" " * 70_000))["code"] == "body.too-large"


async def test_the_operator_does_everything_over_its_socket(
    operator: httpx.AsyncClient, node: small_node.SmallNode
) -> None:
    status = msgspec.json.decode((await operator.get("/admin/v1/status")).content, type=ports.NodeStatus)
    assert status == await node.status()
    assert (await operator.post("/admin/v1/organisations", json={"name": "third"})).json() == {"id": "third"}
    assert len((await operator.get("/admin/v1/exchanges?limit=10")).json()) == 2
    assert [e["index"] for e in (await operator.get("/admin/v1/exchanges?limit=10&before=1")).json()] == [0]
    assert (await operator.get("/admin/v1/exchanges?limit=0")).status_code == 400
    ask = {
        "project": "claims",
        "action": "chat",
        "model": "tiny",
        "data_class": "restricted",
        "language": "fr",
    }
    answer = (await operator.post("/admin/v1/policy/explain", json=ask)).json()
    told = msgspec.convert(answer, Explanation)
    assert [site.allowed for site in told.sites] == [False]
    assert told.sites[0].rules[0].reason == "Parce que."
    assert [fact.name for fact in told.sites[0].facts if fact.expired] == ["transfer_basis"]
    made = (await operator.post("/admin/v1/keys", json=NEW_KEY)).json()
    assert (await node.authenticate(made["secret"])).project == "claims"
    view = msgspec.json.decode(
        (await operator.get(f"/admin/v1/receipts/{RECEIPT}")).content, type=ports.ReceiptView
    )
    assert view == await node.receipt(RECEIPT)
    assert (await operator.delete(f"/admin/v1/receipts/{RECEIPT}/key")).json()["erased"]
    assert node.erased == [RECEIPT]
    assert (await operator.get("/v1/chat/completions")).status_code == 404


async def test_call_passes_the_answer_through_and_cancels(operator: httpx.AsyncClient, engine: Path) -> None:
    chat = {"model": "tiny", "messages": [{"role": "user", "content": "hello"}], "stream": True}
    call = {"path": "/v1/chat/completions", "body": chat, "data_class": "confidential"}
    answer = await operator.post("/admin/v1/call", json=call)
    assert answer.headers["allod-receipt"] == RECEIPT
    assert answer.text.endswith("data: [DONE]\n\n")
    asked = small_node.seen(engine)["requests"][-1]
    assert asked["body"] == chat
    assert asked["headers"]["allod-data-class"] == "confidential"
    cancelled = small_node.seen(engine)["cancelled"]
    chat["messages"][0]["content"] = "slow"  # type: ignore[index]
    async with operator.stream("POST", "/admin/v1/call", json=call) as slow:
        await anext(slow.aiter_bytes())
    for _ in range(100):
        if small_node.seen(engine)["cancelled"] > cancelled:
            break
        await asyncio.sleep(0.02)
    else:
        pytest.fail("the engine kept working")


async def test_ledger_files(web: httpx.AsyncClient) -> None:
    assert (await web.get("/v1/checkpoint", headers=key("auditor"))).text.startswith("small.example\n")
    assert (await web.get("/v1/ledger/checkpoint", headers=key("auditor"))).status_code == 200
    tile = await web.get("/v1/ledger/tile/0/000.p/2", headers=key("auditor"))
    assert len(tile.content) == 64
    for path in (
        "tile/0/001",
        "tile/0/../../keys",
        "tile/64/000",
        "tile/0/000.p/0",
        "..%2fkeys",
        "tile/0/0000",
    ):
        assert (await web.get(f"/v1/ledger/{path}", headers=key("auditor"))).status_code == 404
    assert (await web.get("/v1/ledger/tile/0/000.p/2", headers=key("developer"))).status_code == 403
    shared = await web.get("/v1/ledger/tile/entries/000.p/2", headers=key("auditor"))
    assert shared.json()["error"]["code"] == "ledger.shared"


async def test_no_front_is_503_with_retry_after(tmp_path: Path) -> None:
    node = small_node.SmallNode([tmp_path / "front-0.sock", tmp_path / "front-1.sock"])
    transport = httpx.ASGITransport(admin_app(node, small_node.OPERATOR))
    async with httpx.AsyncClient(transport=transport, base_url="http://node") as web:
        answer = await web.post("/admin/v1/call", json={"path": "/v1/embeddings", "body": {}})
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert answer.json()["error"]["code"] == "front.absent"


async def test_calls_move_on_from_a_front_that_is_gone(engine: Path, tmp_path: Path) -> None:
    node = small_node.SmallNode([tmp_path / "gone.sock", engine])
    inner = ports.Inner(caller=small_node.OPERATOR, path="/v1/embeddings", body=b'{"input": "x"}')
    for _ in range(4):
        answer = await node.call(inner)
        assert answer.status == 200
        await answer.read()


def test_every_answer_is_what_the_document_says(engine: Path) -> None:
    """Generated requests against a running node: no 500, no undocumented status, no answer off its schema."""
    started, stop, address = threading.Event(), threading.Event(), []

    async def serve() -> None:
        node = small_node.SmallNode([engine])
        async with small_node.serving(admin_app(node, small_node.OPERATOR)) as url:
            address.append(url)
            started.set()
            while not stop.is_set():
                await asyncio.sleep(0.02)

    server = threading.Thread(target=lambda: asyncio.run(serve()))
    server.start()
    try:
        assert started.wait(10)
        schema = schemathesis.openapi.from_url(f"{address[0]}/admin/v1/openapi.json")
        _explore(schema)
    finally:
        stop.set()
        server.join()


def _explore(schema: Any) -> None:
    checks = [
        schemathesis.checks.not_a_server_error,
        schemathesis.checks.status_code_conformance,
        schemathesis.checks.content_type_conformance,
        schemathesis.checks.response_schema_conformance,
    ]
    # No shrinking: the failure names the request, and the whole exploration stays within seconds.
    settings = hypothesis.settings(
        max_examples=8,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    wrong: dict[str, str] = {}
    for found in schema.get_all_operations():
        operation = found.ok()

        @settings
        @hypothesis.given(case=operation.as_strategy())
        def explore(case: Any) -> None:
            try:
                case.call_and_validate(checks=checks)
            except FailureGroup as failures:
                wrong[f"{case.method} {case.path}"] = str(failures.exceptions[0])

        explore()
    assert not wrong, "\n\n".join(f"{where}: {what}" for where, what in wrong.items())
