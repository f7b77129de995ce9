"""What is written down about one exchange: its intent before, its statement after. Pure; the spool is
elsewhere.
"""

from __future__ import annotations

import hashlib

import msgspec

from allod.clock import Clock
from allod.front.auth import Identity
from allod.front.route import Plan
from allod.front.upstream import Replica
from allod.front.world import World
from allod.ledger.commitment import commit, new_key, new_receipt_id
from allod.ledger.intent import Intent
from allod.ledger.intent import encode as encode_intent
from allod.ledger.statement import Attempt, Energy, Outcome, Statement, Usage

# The fields of a statement and of its parts stand in alphabetical order, `sampling` is made in it: written
# in this order the bytes are those of `statement.encode`, without sorting what is sorted.
_STATEMENT = msgspec.json.Encoder()
NO_ENERGY = Energy(method="none")


class Record:
    """The part of a receipt that is known when the decision is taken."""

    __slots__ = (
        "actor", "endpoint", "id", "input", "input_bytes", "key", "key_check", "origin", "parent", "plan",
        "sampling", "site_facts", "started_us",
    )  # fmt: skip

    def __init__(
        self,
        *,
        world: World,
        plan: Plan[Replica],
        identity: Identity,
        endpoint: str,
        body: bytes,
        sampling: dict[str, str],
        parent: str,
        clock: Clock,
    ) -> None:
        self.started_us = clock.now_us()
        self.id = new_receipt_id(clock)
        self.key = new_key()
        self.key_check = hashlib.sha256(self.key).hexdigest()
        self.actor = commit(self.key, "actor", identity.actor)
        self.input = commit(self.key, "input", body)
        self.input_bytes = len(body)
        self.origin = world.origin
        self.site_facts = world.site_facts
        self.plan = plan
        self.endpoint = endpoint
        self.parent = parent
        self.sampling = sampling

    def rules(self, replica: Replica | None) -> tuple[str, ...]:
        """The rules that allowed the replica's site; without one, those that denied the others."""
        if replica is not None:
            return self.plan.rules[replica.site]
        return tuple(dict.fromkeys(rule for refusal in self.plan.refused for rule in refusal.rules))

    def intent(self, replica: Replica | None) -> bytes:
        plan, ask = self.plan, self.plan.ask
        entry = replica.entry if replica is not None else None
        return encode_intent(
            Intent(
                id=self.id,
                action=ask.action,
                actor=self.actor,
                categories=plan.categories,
                data_class=plan.class_label,
                endpoint=self.endpoint,
                input=self.input,
                input_bytes=self.input_bytes,
                instructions=plan.service.instructions.get(entry.id, "") if entry else "",
                key=self.key,
                key_check=self.key_check,
                model=ask.model,
                organisation=ask.organisation,
                origin=self.origin,
                policy=plan.decision.policy,
                project=ask.project,
                started_us=self.started_us,
                decision="allow" if plan.candidates else "deny",
                engine=entry.engine if entry else "",
                engine_digest=entry.engine_digest if entry else "",
                model_digest=entry.model_digest if entry else "",
                parent=self.parent,
                quantisation=entry.quantisation if entry else "",
                refused=plan.refused,
                replica=entry.id if entry else "",
                rules=self.rules(replica),
                sampling=self.sampling,
                site=entry.site if entry else "",
                site_facts=self.site_facts.get(entry.site, "") if entry else "",
            )
        )

    def leaf(
        self,
        *,
        replica: Replica | None,
        attempts: tuple[Attempt, ...],
        outcome: Outcome,
        status: int,
        output: str,
        output_bytes: int,
        used: Usage,
        energy: Energy,
        ended_us: int,
    ) -> bytes:
        """The statement's bytes. `output` is the commitment, hex, made with this record's key."""
        plan, ask = self.plan, self.plan.ask
        entry = replica.entry if replica is not None else None
        return _STATEMENT.encode(
            Statement(
                action=ask.action,
                actor=self.actor,
                attempts=attempts,
                categories=plan.categories,
                data_class=plan.class_label,
                decision="allow" if plan.candidates else "deny",
                ended_us=ended_us,
                endpoint=self.endpoint,
                energy=energy,
                engine=entry.engine if entry else "",
                engine_digest=entry.engine_digest if entry else "",
                id=self.id,
                input=self.input,
                input_bytes=self.input_bytes,
                instructions=plan.service.instructions.get(entry.id, "") if entry else "",
                key_check=self.key_check,
                model=ask.model,
                model_digest=entry.model_digest if entry else "",
                origin=self.origin,
                outcome=outcome,
                output=output,
                output_bytes=output_bytes,
                organisation=ask.organisation,
                parent=self.parent,
                policy=plan.decision.policy,
                project=ask.project,
                quantisation=entry.quantisation if entry else "",
                refused=plan.refused,
                rules=self.rules(replica),
                sampling=self.sampling,
                site=entry.site if entry else "",
                site_facts=self.site_facts.get(entry.site, "") if entry else "",
                started_us=self.started_us,
                status=status,
                usage=used,
            )
        )


def energy_of(replica: Replica, seconds: float) -> Energy:
    """The configured draw of the machine times the apportioned service time; "none" without a configured
    draw.
    """
    watts = replica.entry.active_watts
    if watts is None:
        return NO_ENERGY
    return Energy(
        method="estimate:active-watts-x-service-time", microjoules=round(watts * seconds * 1_000_000)
    )


def estimated(input_bytes: int, frames: int) -> Usage:
    """For an answer that was cut before the engine reported: four bytes a token in, one token a frame out."""
    return Usage(input_tokens=input_bytes // 4, output_tokens=frames, source="estimated")
