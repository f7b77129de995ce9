"""One snapshot, ready for use: keys, services by every name, plans by kind of request.

A `World` is replaced whole. What outlives it (circuits, connections) is in the replicas, which a new world
takes over from the old one where nothing about them has changed.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import msgspec

from allod import canonical, digest, limits
from allod.front.auth import Identity, Keyring
from allod.front.problems import Problem
from allod.front.route import Plan
from allod.front.snapshot import ServiceEntry, Snapshot
from allod.front.upstream import Replica
from allod.identity.caller import Role
from allod.policy.decision import Ask, DataClass, Decision, Verdict
from allod.sites.facts import Site


class Decides(Protocol):
    """What `policy.decide.Decider` is to the front."""

    @property
    def digest(self) -> str: ...
    def decide(self, ask: Ask, sites: Sequence[Site], now_us: int) -> Decision: ...


MakeDecider = Callable[[str, str], Decides]
ROLE_RULE = "role-calls-no-model"
ERROR_RULE = "policy-error"
_NEVER = 1 << 63


class World:
    def __init__(self, snapshot: Snapshot, decider: Decides, before: Mapping[str, Replica]) -> None:
        self.version = snapshot.version
        self.origin = snapshot.origin
        self.projects = snapshot.projects
        self.keyring = Keyring(snapshot)
        self.sites = snapshot.sites
        self.site_facts = {
            name: digest.of(canonical.dumps(msgspec.to_builtins(site)))
            for name, site in snapshot.sites.items()
        }
        self.replicas: dict[str, Replica] = {}
        self._decider = decider
        self._services: dict[str, ServiceEntry] = {}
        self._plans: dict[tuple[object, ...], Plan[Replica]] = {}
        for service in snapshot.services.values():
            for name in (service.model, *service.aliases):
                self._services.setdefault(name, service)
            for entry in service.replicas:
                site = snapshot.sites.get(entry.site)
                local = site is not None and site.local
                old = before.get(entry.id)
                keep = old is not None and old.entry == entry and old.local == local
                self.replicas[entry.id] = old if keep and old else Replica(entry, local=local)

    def service(self, name: str) -> ServiceEntry:
        """Raises Problem 404 `model.unknown`, naming the nearest model."""
        found = self._services.get(name)
        if found is not None:
            return found
        near = difflib.get_close_matches(name[:200], self._services, n=1, cutoff=0.5)
        hint = (
            f"Did you mean {near[0]!r}? GET /v1/models lists the models"
            if near
            else "GET /v1/models lists the models"
        )
        raise Problem(
            404, "model.unknown", f"there is no model {name[:80]!r} on this node", param="model", hint=hint
        )

    def plan(  # noqa: PLR0917 — what a plan depends on, all of it
        self,
        identity: Identity,
        service: ServiceEntry,
        action: str,
        data_class: DataClass,
        categories: frozenset[str],
        now_us: int,
    ) -> Plan[Replica]:
        """What the policy says, remembered until a fact that it rests on runs out. Never raises: a doubt is
        a no.
        """
        caller = identity.caller
        key = (identity.scope, action, service.model, data_class._value_, categories)
        plan = self._plans.get(key)
        if plan is not None and now_us < plan.decision.valid_until_us:
            return plan
        ask = Ask(
            organisation=caller.organisation,
            project=caller.project,
            role=caller.role.value,
            action=action,
            model=service.model,
            data_class=data_class,
            categories=categories,
        )
        plan = Plan(ask, service, self._decide(ask, service, caller.role, now_us), self._of(service))
        if len(self._plans) >= limits.FRONT_CACHE_ENTRIES_MAX:
            self._plans.clear()
        self._plans[key] = plan
        return plan

    def _of(self, service: ServiceEntry) -> list[Replica]:
        return [self.replicas[entry.id] for entry in service.replicas if entry.site in self.sites]

    def _decide(self, ask: Ask, service: ServiceEntry, role: Role, now_us: int) -> Decision:
        names = dict.fromkeys(entry.site for entry in service.replicas)
        sites = [self.sites[name] for name in names if name in self.sites]
        if role is Role.AUDITOR:
            return self._no(
                names, ROLE_RULE, "an auditor reads receipts and policy, and calls no model", _NEVER
            )
        try:
            return self._decider.decide(ask, sites, now_us)
        except Exception as e:
            # whatever went wrong in there, the answer is no; it is asked again for the next request
            return self._no(
                names, ERROR_RULE, f"the policy could not be evaluated ({type(e).__name__})", now_us
            )

    def _no(self, names: Mapping[str, None], rule: str, reason: str, until_us: int) -> Decision:
        verdicts = tuple(Verdict(site=n, allowed=False, rules=(rule,), reasons=(reason,)) for n in names)
        return Decision(policy=self._decider.digest, verdicts=verdicts, valid_until_us=until_us)
