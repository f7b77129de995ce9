"""Why each site is or is not allowed for a question: verdicts with the facts that mattered.

For a refused site these are the facts that its forbidding rules look at; for an allowed one, every fact that
any rule of the policy looks at, since each had the power to close it. Pure; text rendering is the faces'.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from allod.policy import attributes
from allod.policy.decide import DEFAULT_DENY, Decider
from allod.policy.decision import Ask, Verdict
from allod.sites.facts import Fact, Site


class FactLine(msgspec.Struct, frozen=True, kw_only=True):
    """One fact as it counted. `value` is text for people; "unknown" where it is not known (any more)."""

    name: str
    value: str
    known: bool
    expired: bool = False  # there was a value, and its day has passed
    source: str = ""
    date: str = ""
    kind: str = ""
    expires: str = ""


class RuleLine(msgspec.Struct, frozen=True, kw_only=True):
    """A rule that decided."""

    id: str
    effect: str  # permit | forbid | default-deny
    reason: str
    language: str = "en"  # of the reason: English where the rule's author wrote no other
    law: str = ""
    facts: tuple[str, ...] = ()  # the facts it looks at


class SiteExplanation(msgspec.Struct, frozen=True, kw_only=True):
    site: str
    local: bool
    allowed: bool
    rules: tuple[RuleLine, ...]
    facts: tuple[FactLine, ...]
    errors: tuple[str, ...] = ()


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    ask: Ask
    policy: str  # digest
    valid_until_us: int
    sites: tuple[SiteExplanation, ...]

    @property
    def allowed(self) -> bool:
        return any(s.allowed for s in self.sites)


def explain(
    decider: Decider, ask: Ask, sites: Sequence[Site], now_us: int, language: str = "en"
) -> Explanation:
    """The decision for `ask`, opened up. The verdicts are those of `decider.decide`, never computed twice."""
    decision = decider.decide(ask, sites, now_us)
    return Explanation(
        ask=ask,
        policy=decision.policy,
        valid_until_us=decision.valid_until_us,
        sites=tuple(
            _site(decider, site, verdict, now_us, language)
            for site, verdict in zip(sites, decision.verdicts, strict=True)
        ),
    )


def _site(decider: Decider, site: Site, verdict: Verdict, now_us: int, language: str) -> SiteExplanation:
    effects = {rule.id: rule.effect for rule in decider.rules}
    rules = tuple(
        _rule(decider, rule, effects.get(rule, DEFAULT_DENY), reason, language)
        for rule, reason in zip(verdict.rules, verdict.reasons, strict=True)
    )
    looked_at = {
        f for rule in (effects if verdict.allowed else verdict.rules) for f in _facts_of(decider, rule)
    }
    if site.local and verdict.allowed:
        looked_at = set()  # the rules asked only whether it is this node
    return SiteExplanation(
        site=site.name,
        local=site.local,
        allowed=verdict.allowed,
        rules=rules,
        facts=tuple(_line(f, getattr(site, f), now_us) for f in attributes.FACTS if f in looked_at),
        errors=verdict.errors,
    )


def _rule(decider: Decider, rule: str, effect: str, english: str, language: str) -> RuleLine:
    reason = decider.reason(rule, language) or english
    return RuleLine(
        id=rule,
        effect=effect,
        reason=reason,
        language="en" if reason == english else language,
        law=decider.law(rule),
        facts=_facts_of(decider, rule),
    )


def _facts_of(decider: Decider, rule: str) -> tuple[str, ...]:
    reads = decider.attributes_read(rule)
    return tuple(dict.fromkeys(f for a in attributes.TABLE if a.name in reads for f in a.facts))


def _line(name: str, fact: Fact[Any], now_us: int) -> FactLine:
    value = attributes.known_value(fact, now_us)
    return FactLine(
        name=name,
        value=_text(value),
        known=value is not None,
        expired=value is None and fact.value is not None,
        source=fact.source,
        date=fact.date,
        kind=fact.kind if fact.value is not None else "",
        expires=fact.expires,
    )


def _text(value: Any) -> str:
    if value is None:
        return attributes.UNKNOWN
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(str(v) for v in value) or "none"
    return str(value)
