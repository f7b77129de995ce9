"""Which replica: a pure choice among those that the policy allowed, and nothing else.

`Plan` is the policy's answer for one kind of request under one snapshot, ready to be followed many times. Its
candidates are filtered when it is made and `choose` can only pick from them: a site that is not in
`decision.allowed_sites` has no way into a plan.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any, Generic, Protocol, TypeVar

from allod.front.breaker import Breaker
from allod.front.snapshot import ServiceEntry
from allod.ledger.statement import Refusal
from allod.policy.decision import Ask, Decision


class Candidate(Protocol):
    """What choosing needs to know of a replica."""

    id: str
    site: str
    breaker: Breaker
    inflight: int
    last_used: int  # a running number: the smaller, the longer ago


C = TypeVar("C", bound=Candidate)


class Plan(Generic[C]):
    """Immutable but for `forms`. `rules` has, per allowed site, the rules that allowed it."""

    __slots__ = (
        "ask", "candidates", "categories", "class_label", "data_class", "decision", "forms", "refused",
        "rules", "service", "upstream_models", "valid_until_us",
    )  # fmt: skip

    def __init__(self, ask: Ask, service: ServiceEntry, decision: Decision, replicas: Iterable[C]) -> None:
        allowed = frozenset(decision.allowed_sites)
        self.ask = ask
        self.class_label = ask.data_class.label
        self.data_class = self.class_label.encode()
        self.service = service
        self.decision = decision
        self.candidates = tuple(r for r in replicas if r.site in allowed)
        self.rules = {v.site: v.rules for v in decision.verdicts if v.allowed}
        self.refused = tuple(Refusal(rules=v.rules, site=v.site) for v in decision.verdicts if not v.allowed)
        self.categories = tuple(sorted(ask.categories))
        # By replica, of this service: several models of one provider share a replica's id and its socket.
        self.upstream_models = {r.id: r.upstream_model for r in service.replicas}
        self.valid_until_us = decision.valid_until_us
        self.forms: dict[C | None, Any] = {}  # what its receipts have in common, as `receipt` keeps it


def choose(candidates: Sequence[C], tried: Collection[str], now: float) -> C | None:
    """The next replica to contact, or None when there is none left.

    Sites come in the order of the candidates; among neighbours of one site the least busy goes first, and
    of equally busy ones the one that was used longest ago. Open circuits are skipped.
    """
    if not tried and len(candidates) == 1:  # as nearly always
        return candidates[0] if candidates[0].breaker.allows(now) else None
    best: C | None = None
    for replica in candidates:
        if best is not None and replica.site != best.site:
            break
        if replica.id in tried or not replica.breaker.allows(now):
            continue
        if best is None or (replica.inflight, replica.last_used) < (best.inflight, best.last_used):
            best = replica
    return best
