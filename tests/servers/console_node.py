"""A node of fixed facts for the console's tests: `api.ports.NodePort` as a real process behind uvicorn.

It answers what a console asks with realistic values, and with hostile ones: names, reasons and answers that
are HTML and script, facts that nobody knows, exchanges that were refused, cancelled or failed. The receipts
are of no real ledger: verification fails for the second one and succeeds for all others.

    python tests/servers/console_node.py    prints its address on one line, then serves
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from collections.abc import AsyncIterator

import msgspec
import uvicorn
from console_papers import papers
from starlette.applications import Starlette
from starlette.routing import Mount

from allod.api.ports import (
    Check,
    ExchangeView,
    Inner,
    ModelPapersView,
    NodeStatus,
    ReceiptFormat,
    ReceiptView,
    ReplicaView,
    ServiceView,
    SiteView,
    Verification,
)
from allod.clock import SystemClock
from allod.console import console_app
from allod.errors import NotFound, Unauthenticated
from allod.identity.caller import Caller, Role
from allod.ledger.statement import Attempt, Energy, Refusal, Statement, Usage, encode
from allod.policy.decision import Ask, DataClass
from allod.policy.explain import Explanation, RuleLine, SiteExplanation
from allod.sites.facts import Fact, Site

HOSTILE = "<img src=x onerror=alert(1)>\"'><script>window.pwned=1</script>{{7*7}}"
SESSION_KEY = b"a key of the tests, thirty-two bytes or more"
POLICY = "sha256:" + "5d" * 32
START = 1_763_700_000_000_000
KEYS = {
    "allod_own_1": Caller(key_id="own", organisation="hospital", project="ward", role=Role.OWNER),
    "allod_dev_1": Caller(key_id="dev", organisation="hospital", project="ward", role=Role.DEVELOPER),
    "allod_aud_1": Caller(key_id="aud", organisation="hospital", project="audit", role=Role.AUDITOR),
    "allod_svc_1": Caller(key_id="svc", organisation="hospital", project="ward", role=Role.SERVICE),
    "allod_xss_1": Caller(key_id="xss", organisation="hospital", project=HOSTILE, role=Role.DEVELOPER),
    "allod_oth_1": Caller(key_id="oth", organisation="bank", project="cards", role=Role.OWNER),
}
_REASONS = {
    "restricted-stays-home": "Restricted data is processed on machines of the organisation itself.",
    "no-third-country-control": (
        "The operator's ultimate controller sits in a country whose law reaches the data (18 U.S.C. § 2713)."
    ),
    "unknown-counts-as-worst": "Where the controllers are not known, only public data may go.",
}


def site(
    name: str, country: str | None, *, local: bool = False, controllers: list[str] | None = None
) -> Site:
    known = {"source": "commercial register", "date": "2026-10-02", "kind": "public-record"}
    us = controllers is not None and "US" in controllers
    return Site(
        name=name,
        local=local,
        operator=Fact(value="Klinikum am Wald" if local else f"{name} operator", **known),
        establishment=Fact(value=country, **(known if country else {})),
        controllers=Fact(value=controllers, **(known if controllers else {})),
        storage_countries=Fact(value=[country] if country else None),
        processing_countries=Fact(
            value=[country] if country else None, source="contract 4711", date="2026-09-01"
        ),
        support_countries=Fact(value=None),
        cloud_act=Fact(value=us if controllers else None, source="legal opinion", date="2026-03-04"),
        fisa_702=Fact(value=None),
        retains_content=Fact(value=False if local else None),
        trains_on_content=Fact(value=False),
        certificates=Fact(
            value=["C5:2020 type 2", "ISO 27001"] if country == "DE" else [], expires="2027-04-30"
        ),
        transfer_basis=Fact(value="none-needed" if local else None),
    )


def _rule(name: str, effect: str, reason: str, language: str) -> RuleLine:
    return RuleLine(id=name, effect=effect, reason=reason, language=language, law="GDPR Art. 44")


def sites() -> list[SiteView]:
    def view(s: Site, reach: int, rule: str, services: tuple[str, ...], health: str = "ok") -> SiteView:
        may = {c.label: c < reach for c in DataClass}
        why = {c.label: (_REASONS.get(rule, rule),) for c in DataClass if c >= reach}
        return SiteView(site=s, services=services, health=health, may=may, why_not=why)

    chat = ("ministral-3b", "house-test")
    return [
        view(site("here", "DE", local=True, controllers=["DE"]), 4, "", (*chat, "reader")),
        view(site("rhein-cloud", "DE", controllers=["DE"]), 3, "restricted-stays-home", chat),
        view(site("loire-ai", "FR", controllers=["FR"]), 3, "restricted-stays-home", chat, "open-circuit"),
        view(site("bigcloud-frankfurt", "DE", controllers=["US"]), 1, "no-third-country-control", chat),
        view(site("mystery", None), 1, "unknown-counts-as-worst", chat, "unknown"),
        view(site(HOSTILE, "US", controllers=["US"]), 0, HOSTILE, (HOSTILE,)),
    ]


def status(*, size: int) -> NodeStatus:
    def replica(id: str, state: str = "ready", **more: object) -> ReplicaView:
        base = {
            "site": "here",
            "engine": "llama.cpp/xllamacpp 2026.10.11549",
            "engine_digest": "sha256:" + "1a" * 32,
        }
        return msgspec.convert(
            {**base, "id": id, "state": state, "model_digest": "sha256:" + "9f" * 32, "sealed": True, **more},
            ReplicaView,
        )

    def service(
        model: str, kind: str, origin: str, *replicas: ReplicaView, test: bool = False
    ) -> ServiceView:
        return ServiceView(
            model=model,
            kind=kind,
            aliases=("small",) if test else (),
            context_tokens=32_768 if kind == "chat" else None,
            test_model=test,
            origin=origin,
            replicas=replicas,
        )

    return NodeStatus(
        origin="klinikum.example/allod",
        version="0.1.0",
        ready=False,
        started_us=START,
        listen="http://127.0.0.1:8080",
        workers=2,
        ledger_size=size,
        checkpoint_us=SystemClock().now_us() - 12_000_000,
        spooled=3,
        services=(
            service(
                "ministral-3b",
                "chat",
                "Mistral AI, France, Apache-2.0",
                replica("ministral-3b-0", rss_bytes=2_913_000_000),
                replica("ministral-3b-1", "starting", reason="loading the model files"),
                replica(
                    "egress-loire",
                    site="loire-ai",
                    engine="provider",
                    engine_digest="",
                    model_digest="",
                    sealed=False,
                ),
            ),
            service(
                "house-test", "chat", "made on this machine for testing", replica("house-test-0"), test=True
            ),
            service("reader", "ocr", "unknown", replica("reader-0", engine="tesseract 5.3.0", restarts=1)),
            service(
                HOSTILE, "chat", HOSTILE, replica("r-x", "failed", engine="", model_digest="", reason=HOSTILE)
            ),
        ),
        checks=(
            Check(name="ledger", ok=True, detail="last checkpoint is signed and on disk"),
            Check(name="policy", ok=True, detail="14 rules, parsed with their schema"),
            Check(name="keys", ok=True, detail="snapshot 41 is on every front worker"),
            Check(name="disk", ok=False, detail=f"2.1 GB free of 40 GB {HOSTILE}", hint="allod doctor disk"),
        ),
    )


def statement(number: int, **more: object) -> Statement:
    started = START + number * 61_000_000
    base: dict[str, object] = {
        "action": "chat",
        "actor": "ab" * 32,
        "data_class": "confidential",
        "decision": "allow",
        "ended_us": started + 412_000,
        "endpoint": "/v1/chat/completions",
        "engine": "llama.cpp/xllamacpp 2026.10.11549",
        "engine_digest": "sha256:" + "1a" * 32,
        "id": f"r-01KAK{number:021d}",
        "input": "cd" * 32,
        "input_bytes": 2_310,
        "key_check": "ef" * 32,
        "model": "ministral-3b",
        "model_digest": "sha256:" + "9f" * 32,
        "origin": "klinikum.example/allod",
        "outcome": "answered",
        "output": "12" * 32,
        "output_bytes": 1_204,
        "organisation": "hospital",
        "policy": POLICY,
        "project": "ward",
        "quantisation": "Q4_K_M",
        "rules": ["inside-the-union"],
        "sampling": {"temperature": "0.2", "seed": "7"},
        "site": "here",
        "site_facts": "sha256:" + "77" * 32,
        "started_us": started,
        "status": 200,
        "attempts": [{"outcome": "answered", "replica": "ministral-3b-0", "site": "here"}],
        "refused": [
            {"rules": ["no-third-country-control"], "site": "bigcloud-frankfurt"},
            {"rules": ["unknown-counts-as-worst"], "site": "mystery"},
        ],
        "usage": {"input_tokens": 512, "output_tokens": 248, "source": "engine"},
        "energy": {"method": "estimate:active-watts-x-service-time", "microjoules": 18_540_000},
    }
    return msgspec.convert({**base, **more}, Statement)


_NOWHERE: dict[str, object] = {
    "data_class": "restricted",
    "categories": ["health", "personal"],
    "decision": "deny",
    "outcome": "refused",
    "status": 403,
    "site": "",
    "site_facts": "",
    "engine": "",
    "engine_digest": "",
    "model_digest": "",
    "quantisation": "",
    "attempts": [],
    "rules": ["restricted-stays-home"],
    "sampling": {},
    "output_bytes": 214,
    "usage": Usage(),
    "energy": Energy(method="none"),
    "refused": [Refusal(rules=("restricted-stays-home",), site=s) for s in ("rhein-cloud", "loire-ai")]
    + [Refusal(rules=("no-third-country-control", "restricted-stays-home"), site="bigcloud-frankfurt")],
}


def history() -> list[Statement]:
    """Oldest first."""
    failover = (
        Attempt(outcome="connect-failed", replica="egress-loire", site="loire-ai"),
        Attempt(outcome="answered", replica="ministral-3b-0", site="here"),
    )
    ocr = {
        "action": "ocr",
        "endpoint": "/v1/ocr",
        "model": "reader",
        "usage": Usage(pages=12, source="engine"),
    }
    return [
        statement(1),
        statement(2, project="archive", **ocr),
        statement(3, **_NOWHERE),
        statement(4, attempts=failover, data_class="internal"),
        statement(
            5,
            outcome="failed",
            status=503,
            attempts=(Attempt(outcome="status-503", replica="r-0", site="loire-ai"),),
        ),
        statement(
            6,
            model=HOSTILE,
            rules=[HOSTILE],
            site=HOSTILE,
            categories=["health"],
            refused=[Refusal(rules=(HOSTILE,), site=HOSTILE * 3)],
        ),
        statement(7, organisation="bank", project="cards"),
        statement(
            8,
            outcome="cancelled",
            status=499,
            data_class="public",
            usage=Usage(input_tokens=31, source="estimated"),
        ),
        statement(9, categories=["personal"]),
    ]


class Answer:
    def __init__(self, status: int, receipt: str, body: object) -> None:
        self.status = status
        self.headers = {"allod-receipt": receipt, "allod-site": "here", "content-type": "application/json"}
        self._body = json.dumps(body).encode()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self._body

    async def read(self) -> bytes:
        return self._body

    async def aclose(self) -> None: ...


class ConsoleNode:
    """Only the part of the port that a console uses; everything else would raise AttributeError."""

    def __init__(self) -> None:
        self.log = history()
        self.revoked: set[str] = set()

    async def status(self) -> NodeStatus:
        return status(size=12_345)

    async def sites(self) -> list[SiteView]:
        return sites()

    async def model_papers(self, name: str) -> ModelPapersView:
        return papers(name, HOSTILE)

    async def exchanges(
        self, *, organisation: str | None, project: str | None, limit: int, before: int | None = None
    ) -> list[ExchangeView]:
        mine = [
            ExchangeView(index=None if s is self.log[-1] and len(self.log) == 9 else n, statement=s)
            for n, s in enumerate(self.log)
            if organisation in {None, s.organisation} and project in {None, s.project}
        ]
        return mine[::-1][:limit]

    async def receipt(self, receipt_id: str) -> ReceiptView:
        for n, s in enumerate(self.log):
            if s.id == receipt_id:
                root = "9nVqY0Hk4u5u3m8yKxk1y7m4o6cTq1tZ1yJr1o3mL5g="
                note = f"{s.origin}\n{len(self.log)}\n{root}\n\n— {s.origin} AbCdEf==\n"
                proof = f"c2sp.org/tlog-proof@v1\nindex {n}\n{'7t' * 21}=\n{'Q9' * 21}=\n\n{note}"
                return ReceiptView(index=n, statement=s, leaf=encode(s), proof=proof, checkpoint=note)
        raise NotFound("receipt.unknown", f"there is no receipt {receipt_id!r}")

    async def receipt_file(self, receipt_id: str, form: ReceiptFormat) -> bytes:
        view = await self.receipt(receipt_id)
        return {"tlog-proof": view.proof.encode(), "cose": b"\xd2\x84C\xa1\x01\x26", "json": view.leaf}[form]

    async def verify_receipt(self, receipt_id: str) -> Verification:
        broken = receipt_id == self.log[1].id
        return Verification(
            ok=not broken,
            checks=(
                Check(
                    name="inclusion",
                    ok=not broken,
                    detail="the path from the entry leads to the checkpoint's root",
                ),
                Check(name="Ed25519", ok=True, detail="the checkpoint is signed by klinikum.example/allod"),
                Check(
                    name="ML-DSA-44", ok=True, detail="second signature, for the time after quantum computers"
                ),
            ),
        )

    async def explain(self, ask: Ask, language: str = "en") -> Explanation:
        """Only the rule that refuses is written in French too."""

        def told(v: SiteView) -> SiteExplanation:
            rule = _rule("inside-the-union", "permit", "It stays inside the Union.", "en")
            if not v.may[ask.data_class.label]:
                (english,) = v.why_not[ask.data_class.label]
                reason = ("Ce qui est réservé reste ici.", "fr") if language == "fr" else (english, "en")
                rule = _rule("restricted-stays-home", "forbid", *reason)
            return SiteExplanation(
                site=v.site.name,
                local=v.site.local,
                allowed=rule.effect == "permit",
                rules=(rule,),
                facts=(),
            )

        offered = tuple(told(v) for v in sites()[:5])
        return Explanation(ask=ask, policy=POLICY, sites=offered, valid_until_us=2**62)

    async def authenticate(self, presented: str) -> Caller:
        caller = KEYS.get(presented)
        if caller is None or caller.key_id in self.revoked:
            raise Unauthenticated("key.unknown", "this key is not known here")
        return caller

    async def caller(self, key_id: str) -> Caller:
        for caller in KEYS.values():
            if caller.key_id == key_id and key_id not in self.revoked:
                return caller
        raise Unauthenticated("key.revoked", "this key has been revoked")

    async def call(self, inner: Inner) -> Answer:
        body = json.loads(inner.body)
        common = {
            "data_class": inner.data_class or "internal",
            "project": inner.caller.project,
            "model": body["model"],
            "categories": [c for c in inner.data_categories.split(",") if c],
            "input_bytes": len(inner.body),
        }
        if common["data_class"] == "restricted" and body["model"] != "reader":
            made = statement(len(self.log) + 1, **{**_NOWHERE, **common})
            answer: tuple[int, object] = (
                403,
                {
                    "error": {
                        "message": f"restricted data may not go to any site that serves {body['model']}",
                        "code": "policy.denied",
                    }
                },
            )
        elif inner.path == "/v1/ocr":
            made = statement(
                len(self.log) + 1,
                **{
                    **common,
                    "action": "ocr",
                    "endpoint": inner.path,
                    "usage": Usage(pages=2, source="engine"),
                },
            )
            pages = [
                {"index": 0, "markdown": "# Arztbrief\n\n| Wert | |\n|---|---|\n| Hb | 13.1 |"},
                {"index": 1, "markdown": HOSTILE},
            ]
            answer = (200, {"pages": pages, "usage_info": {"pages_processed": 2}})
        else:
            made = statement(len(self.log) + 1, **common)
            text = f"You said: {body['messages'][0]['content']}"
            answer = (200, {"choices": [{"message": {"role": "assistant", "content": text}}]})
        self.log.append(made)
        return Answer(answer[0], made.id, answer[1])


def main() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    print(f"http://127.0.0.1:{listener.getsockname()[1]}/console/", flush=True)
    app = Starlette(routes=[Mount("/console", console_app(ConsoleNode(), SESSION_KEY))])  # type: ignore[arg-type]
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False))
    asyncio.run(server.serve(sockets=[listener]))


if __name__ == "__main__":
    sys.exit(main())
