"""No sequence of failures, reloads, expiries or missing facts contacts a site that the policy does not allow.

The exchange under test is the real one; the world around it (policy, replicas, disk, time) is a simulator
that hypothesis drives. Every contact is judged at the moment at which it happens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from allod.clock import ManualClock
from allod.front.auth import Identity
from allod.front.exchange import Exchange
from allod.front.http1 import request_head, response_head
from allod.front.problems import Problem
from allod.front.snapshot import ProjectEntry, ReplicaEntry, ServiceEntry, Snapshot
from allod.front.terms import HOT, Terms
from allod.front.worker import Counts
from allod.front.world import World
from allod.identity.caller import Caller, Role
from allod.ledger.statement import Statement, decode
from allod.policy.decision import Ask, DataClass, Decision, Verdict
from allod.sites.facts import Fact, Site

SITES = ("here", "near", "far")
EVENTS = ("connect-fails", "reset", "status-503", "answers", "dies-inside", "timeout", "client-leaves")


def site(name: str) -> Site:
    no: Fact[Any] = Fact(value=None)
    return Site(
        name=name, local=name == "here", operator=no, establishment=no, controllers=no, storage_countries=no,
        processing_countries=no, support_countries=no, cloud_act=no, fisa_702=no, retains_content=no,
        trains_on_content=no, certificates=no, transfer_basis=no,
    )  # fmt: skip


class Policy:
    """Allows a set of sites, until a moment; may also explode."""

    def __init__(self, allowed: frozenset[str], valid_us: int, *, explodes: bool) -> None:
        self.allowed = allowed
        self.valid_us = valid_us
        self.explodes = explodes
        self.digest = "sha256:" + "0" * 64

    def decide(self, ask: Ask, sites: Sequence[Site], now_us: int) -> Decision:
        if self.explodes:
            raise RuntimeError("the engine is broken")
        verdicts = tuple(Verdict(site=s.name, allowed=s.name in self.allowed, rules=("r",)) for s in sites)
        return Decision(policy=self.digest, verdicts=verdicts, valid_until_us=now_us + self.valid_us)


class Connection:
    """What an exchange sees of an upstream."""

    fresh = True
    answered = False

    def ask(self, head: bytes, body: bytes, sink: Exchange) -> None:
        self.sink = sink

    def close(self) -> None: ...
    def pause(self) -> None: ...
    def resume(self) -> None: ...


class Simulator:
    """Stands where the worker and the client stand, and writes down every contact."""

    def __init__(self, draw: Callable[[Any], Any]) -> None:
        self.draw = draw
        self.clock = ManualClock()
        self.counts = Counts()
        self.evidence = self
        self.world: World | None = None
        self.version = 0
        self.durable: list[Callable[[bool], None]] = []
        self.begun: list[bytes] = []
        self.ended: list[Statement] = []
        self.synced = 0  # how many intents are on the disk
        self.contacts: list[str] = []
        self.answers: list[Problem | str] = []
        self.deadline = 0.0
        self.keeps, self.minor, self.dialect = True, 1, "openai"
        self.reload()

    def now(self) -> float:
        return self.clock.monotonic()

    def reload(self) -> None:
        self.version += 1
        known = self.draw(st.sets(st.sampled_from(SITES)))  # facts of the others are missing
        self.policy = Policy(
            frozenset(self.draw(st.sets(st.sampled_from(SITES)))),
            self.draw(st.sampled_from([0, 1_000, 10**12])),
            explodes=self.draw(st.integers(0, 9)) == 0,
        )
        order = self.draw(st.permutations([f"{s}{n}" for s in SITES for n in range(2)]))
        replicas = tuple(
            ReplicaEntry(
                id=r, site=r[:-1], socket=f"/{r}", upstream_model="m",
                engine="", engine_digest="", model_digest="",
            )
            for r in order
        )  # fmt: skip
        project = ProjectEntry(
            id="p", organisation="o", default_class=DataClass.PUBLIC, floor_class=DataClass.PUBLIC
        )
        snapshot = Snapshot(
            version=self.version, origin="o", keys={}, projects={"p": project},
            sites={s: site(s) for s in known},
            services={"m": ServiceEntry(model="m", kind="chat", replicas=replicas)}, policy_text="",
            policy_schema="",
        )  # fmt: skip
        self.world = World(snapshot, self.policy, self.world.replicas if self.world else {})
        for replica in self.world.replicas.values():
            replica.pool = Pool(self, replica.id, replica.site)  # type: ignore[assignment]

    # evidence
    def check(self) -> None: ...

    def begin(self, intent: bytes) -> None:
        self.begun.append(intent)

    def end(self, receipt_id: str, leaf: bytes, key: bytes) -> None:
        self.ended.append(decode(leaf))

    def when_durable(self, told: Callable[[bool], None]) -> None:
        self.durable.append(told)

    def settle(self, *, ok: bool = True) -> None:
        while self.durable:
            waiting, self.durable = self.durable, []
            self.synced = len(self.begun) if ok else self.synced
            for told in waiting:
                told(ok)

    # client
    def write(self, data: bytes) -> None: ...
    def finished(self) -> None:
        self.answers.append("answer")

    def leave(self) -> None:
        self.answers.append("cut")

    def abort(self) -> None:
        self.answers.append("abort")

    def problem(self, problem: Problem, **_: str) -> None:
        self.answers.append(problem)


class Pool:
    def __init__(self, simulator: Simulator, replica: str, where: str) -> None:
        self.simulator = simulator
        self.replica = replica
        self.site = where
        self.waiting: Callable[[Any], None] | None = None

    def take(self) -> None: ...
    def close(self) -> None: ...

    def connect(self, done: Callable[[Any], None]) -> None:
        simulator = self.simulator
        assert simulator.world is not None
        now = simulator.policy
        known = simulator.world.sites
        assert self.site in now.allowed, "a site was contacted that the policy in force does not allow"
        assert self.site in known, "a site was contacted of which nothing is known"
        assert not now.explodes
        if self.site != "here":
            assert simulator.synced, "a byte would leave the machine before the intent is on the disk"
        simulator.contacts.append(self.replica)
        simulator.pending = done


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_no_sequence_contacts_a_site_that_is_not_allowed(data: st.DataObject) -> None:
    sim = Simulator(data.draw)
    assert sim.world is not None
    project = sim.world.projects["p"]
    caller = Caller(key_id="k", organisation="o", project="p", role=data.draw(st.sampled_from(Role)))
    first_allowed = sim.policy.allowed
    vouched = Identity(caller, project, 1 << 62).header
    raw = (
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        b"allod-data-class: public\r\nallod-internal-caller: " + vouched + b"\r\n"
    )
    head = request_head(raw, len(raw))
    terms = Terms(HOT[head.path], head, sim.world, sim.clock.now_us(), inner=True)
    exchange = Exchange(sim, sim, terms)  # type: ignore[arg-type]
    stream = data.draw(st.booleans())
    exchange.start(b'{"model":"m","stream":%b}' % (b"true" if stream else b"false"), sim.clock.now_us())
    sim.pending = None if not sim.contacts else sim.pending  # type: ignore[has-type]
    for _ in range(12):
        if exchange.ended:
            break
        if sim.durable:  # the intent waits for the disk: anything may happen meanwhile
            if data.draw(st.booleans()):
                sim.reload()
            sim.settle(ok=data.draw(st.integers(0, 9)) > 0)
            continue
        if data.draw(st.integers(0, 3)) == 0:
            sim.reload()
        sim.clock.advance(data.draw(st.sampled_from([0.0, 0.01, 5.0])))
        step(sim, exchange, data.draw(st.sampled_from(EVENTS)))
    if not exchange.ended:
        exchange.cancelled()
    sim.settle()
    assert len(sim.begun) == len(sim.ended) == 1
    statement = sim.ended[0]
    assert [a.replica for a in statement.attempts] == sim.contacts
    assert {a.site for a in statement.attempts} <= first_allowed
    if caller.role is Role.AUDITOR:
        assert not sim.contacts
    if statement.outcome == "refused":
        assert statement.decision == "deny"
        assert not sim.contacts


def step(sim: Simulator, exchange: Exchange, event: str) -> None:
    pending, sim.pending = sim.pending, None
    assert pending is not None
    if event == "client-leaves":
        exchange.cancelled()
        pending(None)
        return
    if event == "connect-fails":
        pending(None)
        return
    connection = Connection()
    pending(connection)
    if event in ("reset", "timeout"):
        exchange.upstream_lost(event)
        return
    status = 503 if event == "status-503" else 200
    head = b"HTTP/1.1 %d X\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n" % status
    exchange.upstream_head(response_head(head, len(head)))
    if status != 200:
        return
    exchange.upstream_body(b'data: {"choices":[]}\n\n')
    if event == "answers":
        exchange.upstream_body(b"data: [DONE]\n\n")
        exchange.upstream_end()
    else:
        exchange.upstream_lost("reset")
