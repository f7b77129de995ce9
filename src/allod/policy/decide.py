"""May this request go to these sites? Everything that is not a clean yes from Cedar is a no.

What is guaranteed: a site is allowed only where Cedar says Allow with zero errors, for a question and
entities that conform to the schema. A rule that cannot be evaluated, a fact that is missing or has run out,
one name with two sets of facts, an exception in the engine: each denies. Pure: no clock, no file, no state
between two questions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cedarpy

from allod import canonical, digest
from allod.policy import attributes
from allod.policy.decision import Ask, Decision, Verdict
from allod.policy.rules import Rule, read
from allod.sites.facts import Site

DEFAULT_DENY = "default-deny"


class Decider:
    """A policy, read once. Reading raises Unprocessable `policy.invalid`; deciding never raises."""

    def __init__(self, policy_text: str, schema: str) -> None:
        self._reading = read(policy_text, schema)
        self.digest = digest.of(canonical.dumps({"schema": schema, "text": policy_text}))
        permits = [r for r in self._reading.rules if r.effect == "permit"]
        self._permits = "; ".join(f"{r.id}: {r.reason}" for r in permits) or "the policy has no permit at all"

    @property
    def rules(self) -> list[Rule]:
        """(id, effect, reason) of every rule, in the order of the text."""
        return list(self._reading.rules)

    def reason(self, rule_id: str, language: str = "en") -> str:
        """The sentence of a rule, in English where the language is not written; empty for an unknown rule."""
        texts = self._reading.reasons.get(rule_id, {})
        return texts.get(language) or texts.get("en", "")

    def law(self, rule_id: str) -> str:
        """The legal reference of a rule; empty where none is written."""
        return self._reading.laws.get(rule_id, "")

    def attributes_read(self, rule_id: str) -> tuple[str, ...]:
        """The site attributes that a rule looks at."""
        return self._reading.reads.get(rule_id, ())

    def decide(self, ask: Ask, sites: Sequence[Site], now_us: int) -> Decision:
        """One verdict per site, in the order offered; facts expire against `now_us` (UTC microseconds)."""
        return Decision(
            policy=self.digest,
            verdicts=self._verdicts(ask, sites, now_us) if sites else (),
            valid_until_us=attributes.next_expiry_us(sites, now_us),
        )

    def _verdicts(self, ask: Ask, sites: Sequence[Site], now_us: int) -> tuple[Verdict, ...]:
        try:
            requests, entities = _question(ask, sites, now_us)
            answers = cedarpy.is_authorized_batch(
                requests, self._reading.policies, entities, schema=self._reading.schema
            )
            if len(answers) != len(sites):
                raise RuntimeError(f"{len(answers)} answers to {len(sites)} questions")
            return tuple(self._verdict(ask, s, a) for s, a in zip(sites, answers, strict=True))
        except Exception as e:
            # whatever went wrong, the answer is no
            return tuple(_failed(s.name, (f"{type(e).__name__}: {e}",)) for s in sites)

    def _verdict(self, ask: Ask, site: Site, answer: Any) -> Verdict:
        errors = tuple(str(e) for e in answer.diagnostics.errors)
        if errors or answer.decision is cedarpy.Decision.NoDecision:
            return _failed(site.name, errors or ("the engine gave no decision",))
        decided = [self._reading.by_cedar_id[cedar_id] for cedar_id in answer.diagnostics.reasons]
        decided.sort(key=self._reading.rules.index)
        if answer.decision is not cedarpy.Decision.Allow and not decided:
            why = (
                f"no rule permits {ask.action!r} for the role {ask.role!r}; "
                f"what could have permitted it: {self._permits}"
            )
            return Verdict(site=site.name, allowed=False, rules=(DEFAULT_DENY,), reasons=(why,))
        return Verdict(
            site=site.name,
            allowed=answer.decision is cedarpy.Decision.Allow,
            rules=tuple(r.id for r in decided),
            reasons=tuple(r.reason for r in decided),
        )


def _question(
    ask: Ask, sites: Sequence[Site], now_us: int
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    caller = {"type": "Caller", "id": f"{ask.organisation}/{ask.project}/{ask.role}"}
    attrs = {"organisation": ask.organisation, "project": ask.project, "role": str(ask.role)}
    context = {
        "model": ask.model,
        "data_class": int(ask.data_class),
        "categories": sorted(ask.categories),
    }
    requests = [
        {
            "principal": caller,
            "action": {"type": "Action", "id": ask.action},
            "resource": {"type": "Site", "id": site.name},
            "context": context,
        }
        for site in sites
    ]
    entities = [{"uid": caller, "attrs": attrs, "parents": []}]
    return requests, entities + [attributes.entity(s, now_us) for s in sites]


def _failed(site: str, errors: tuple[str, ...]) -> Verdict:
    why = "the policy could not be evaluated for this site, which is a no"
    return Verdict(site=site, allowed=False, rules=(DEFAULT_DENY,), reasons=(why,), errors=errors)
