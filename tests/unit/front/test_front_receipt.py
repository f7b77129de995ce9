"""The bytes that the front writes for its records are the ledger's own encoding, for any values."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from allod.front import body, receipt
from allod.front.receipt import Record
from allod.front.route import Plan
from allod.front.snapshot import ReplicaEntry, ServiceEntry
from allod.front.upstream import Replica
from allod.ledger import intent, statement
from allod.ledger.commitment import commit, key_check
from allod.ledger.intent import Intent
from allod.ledger.statement import Attempt, Energy, Refusal, Statement, Usage
from allod.policy.decision import Ask, DataClass, Decision, Verdict

text = st.text(max_size=12) | st.sampled_from(["%b", "100 %", '"', "\0", "é\u2028"])
small = st.integers(0, 1 << 53)
number = st.none() | st.integers(-(1 << 40), 1 << 40) | st.floats(allow_nan=False, allow_infinity=False)
asks = st.builds(
    Ask, organisation=text, project=text, role=text, action=text, model=text,
    data_class=st.sampled_from(DataClass), categories=st.frozensets(text, max_size=3),
)  # fmt: skip
entries = st.builds(
    ReplicaEntry, id=text, site=text, socket=text, upstream_model=text, engine=text, engine_digest=text,
    model_digest=text, quantisation=text, active_watts=st.none() | st.floats(0, 1e6),
)  # fmt: skip
verdicts = st.lists(
    st.builds(Verdict, site=text, allowed=st.booleans(), rules=st.lists(text, max_size=3).map(tuple)),
    max_size=3,
)
asked_bodies = st.builds(
    body.Asked, model=st.just("m"), seed=number, n=number, temperature=number, top_p=number,
    max_tokens=number, random_seed=number, max_completion_tokens=number,
)  # fmt: skip
usages = st.builds(
    Usage, input_tokens=small, output_tokens=small, pages=small,
    source=st.sampled_from(["engine", "estimated", "none"]),
)  # fmt: skip


@given(st.data(), asks, entries, verdicts, asked_bodies, usages)
def test_records_are_the_ledgers_own_bytes(
    data: st.DataObject, ask: Ask, entry: ReplicaEntry, others: list[Verdict], asked: body.Asked, used: Usage
) -> None:
    here = Verdict(site=entry.site, allowed=data.draw(st.booleans()), rules=("r%", "é"))
    found = [v for v in others if v.site != entry.site] + [here]
    decision = Decision(policy=data.draw(text), verdicts=tuple(found), valid_until_us=1)
    replica = Replica(entry, local=True)
    instructions = data.draw(text)
    service = ServiceEntry(model="m", kind="chat", replicas=(entry,), instructions={entry.id: instructions})
    plan = Plan(ask, service, decision, [replica])
    chosen = replica if here.allowed and data.draw(st.booleans()) else None
    world: Any = SimpleNamespace(origin=data.draw(text), site_facts={entry.site: data.draw(text)})
    identity: Any = SimpleNamespace(actor=b"key-id")
    endpoint, parent, content = data.draw(text), data.draw(text), data.draw(st.binary(max_size=9))
    started, ended = data.draw(small), data.draw(small)
    record = Record(world, plan, identity, endpoint, content, asked, parent, started)

    key = record.key.key
    refused = tuple(Refusal(rules=v.rules, site=v.site) for v in found if not v.allowed)
    rules = here.rules if chosen else tuple(dict.fromkeys(r for refusal in refused for r in refusal.rules))
    common: dict[str, Any] = {
        "id": record.id, "action": ask.action, "actor": commit(key, "actor", b"key-id"),
        "categories": tuple(sorted(ask.categories)), "data_class": ask.data_class.label,
        "decision": "allow" if here.allowed else "deny", "endpoint": endpoint,
        "input": commit(key, "input", content), "input_bytes": len(content), "key_check": key_check(key),
        "model": ask.model, "organisation": ask.organisation, "origin": world.origin, "parent": parent,
        "policy": decision.policy, "project": ask.project, "refused": refused, "rules": rules,
        "sampling": body.sampling(asked), "started_us": started,
    }  # fmt: skip
    if chosen:
        common |= {
            "engine": entry.engine, "engine_digest": entry.engine_digest, "model_digest": entry.model_digest,
            "quantisation": entry.quantisation, "site": entry.site, "instructions": instructions,
            "site_facts": world.site_facts[entry.site],
        }  # fmt: skip
    begun = Intent(**common, key=key, replica=entry.id if chosen else "")
    assert record.intent(chosen) == intent.encode(begun)

    seconds = data.draw(st.floats(0, 1e4))
    tried = data.draw(st.none() | st.lists(text, max_size=3))
    fared = [(outcome, replica) for outcome in (["answered"] if chosen else []) if tried is None] or [
        (outcome, replica) for outcome in tried or []
    ]
    energy = Energy(method="none")
    if chosen and entry.active_watts is not None:
        energy = Energy(
            method="estimate:active-watts-x-service-time",
            microjoules=round(entry.active_watts * seconds * 1_000_000),
        )
    status, size = data.draw(small), data.draw(small)
    outcome = data.draw(st.sampled_from(["answered", "refused", "failed", "cancelled"]))
    leaf = record.leaf(
        replica=chosen, tried=None if tried is None else receipt.attempts(fared), outcome=outcome,
        status=status, output=record.key.commit("output", content), output_bytes=size, used=used,
        energy=receipt.energy_of(chosen, seconds), ended_us=ended,
    )  # fmt: skip
    stated = Statement(
        **common, attempts=tuple(Attempt(outcome=o, replica=r.id, site=r.site) for o, r in fared),
        outcome=outcome, status=status, output=commit(key, "output", content), output_bytes=size, usage=used,
        energy=energy, ended_us=ended,
    )  # fmt: skip
    assert leaf == statement.encode(stated)
