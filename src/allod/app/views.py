"""From what the rooms hold to what the faces are shown. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from allod.api.ports import KeyView, ProjectView, ReplicaView, ServiceView, SiteView
from allod.app.services import Failed, Plan, replica_names
from allod.clock import Clock
from allod.front.snapshot import ReplicaEntry, ServiceEntry
from allod.identity.caller import Role
from allod.identity.rows import KeyInfo, ProjectRow
from allod.policy.decide import Decider
from allod.policy.decision import Ask, DataClass
from allod.runtime.supervisor import ReplicaState
from allod.sites.facts import Site

_UNSEEN = ReplicaState(id="", state="starting", reason="not looked at yet")


def services(plan: Plan, states: Mapping[str, ReplicaState]) -> tuple[ServiceView, ...]:
    """Every service of the configuration: those that run, and those that could not be planned, with why."""
    known = dict(states)
    for failed in plan.unreachable:
        known[failed.model] = ReplicaState(id=failed.model, state="failed", reason=_why(failed))
    running = [_service(s, plan, known) for s in plan.services.values()]
    return tuple(running + [_failed(f) for f in plan.failed])


def sites(
    known: Mapping[str, Site],
    plan: Plan,
    decider: Decider | None,
    circuits: Mapping[str, str],
    clock: Clock,
) -> list[SiteView]:
    """What may go where: a plain developer's chat of each class, as the policy decides it now."""
    names = replica_names(plan.services)
    return [
        _site(site, names.get(name, ()), circuits.get(name, "unknown"), decider, clock)
        for name, site in known.items()
    ]


def key(info: KeyInfo) -> KeyView:
    return msgspec.convert(info, KeyView, from_attributes=True)


def project(row: ProjectRow) -> ProjectView:
    return ProjectView(
        id=row.id,
        organisation=row.organisation,
        default_class=DataClass(row.default_class),
        floor_class=DataClass(row.floor_class),
        categories=tuple(sorted(row.categories)),
    )


def circuits(counters: Sequence[Mapping[str, object]], plan: Plan) -> dict[str, str]:
    """Site name -> "ok" or "open-circuit": open where every replica's circuit is open in some worker."""
    states: dict[str, list[str]] = {}
    for worker in counters:
        replicas = worker.get("replicas")
        if isinstance(replicas, Mapping):
            for replica, seen_now in replicas.items():
                states.setdefault(str(replica), []).append(str(seen_now.get("breaker")))
    health: dict[str, str] = {}
    absent = {failed.model for failed in plan.unreachable}
    for service in plan.services.values():
        for replica in service.replicas:
            seen = states.get(replica.id)
            if seen is None or replica.id in absent:
                continue
            open_ = any(state == "open" for state in seen)
            if health.get(replica.site) != "ok":
                health[replica.site] = "open-circuit" if open_ else "ok"
    return health


def _service(service: ServiceEntry, plan: Plan, states: Mapping[str, ReplicaState]) -> ServiceView:
    return ServiceView(
        model=service.model,
        kind=service.kind,
        aliases=service.aliases,
        context_tokens=service.context_tokens,
        test_model=service.test_model,
        origin=plan.origins.get(service.model, "unknown"),
        fim=plan.fim.get(service.model),
        vision=service.model in plan.vision,
        replicas=tuple(_replica(r, states.get(r.id, _UNSEEN)) for r in service.replicas),
    )


def _replica(entry: ReplicaEntry, state: ReplicaState) -> ReplicaView:
    return ReplicaView(
        id=entry.id,
        site=entry.site,
        state=state.state,
        engine=entry.engine,
        engine_digest=entry.engine_digest,
        model_digest=entry.model_digest,
        sealed=state.sealed,
        pid=state.pid,
        rss_bytes=state.rss_bytes,
        restarts=state.restarts,
        reason=state.reason,
    )


def _failed(failed: Failed) -> ServiceView:
    replica = ReplicaView(
        id=f"{failed.model}-0",
        site="local",
        state="failed",
        engine="",
        engine_digest="",
        model_digest="",
        sealed=False,
        reason=_why(failed),
    )
    return ServiceView(
        model=failed.model,
        kind=failed.kind,
        aliases=(),
        context_tokens=None,
        test_model=False,
        origin="unknown",
        replicas=(replica,),
    )


def _why(failed: Failed) -> str:
    error = failed.error
    return f"[{error.code}] {error.message}" + (f" ({error.hint})" if error.hint else "")


def _site(
    site: Site, models: tuple[str, ...], health: str, decider: Decider | None, clock: Clock
) -> SiteView:
    may: dict[str, bool] = {}
    why_not: dict[str, tuple[str, ...]] = {}
    for data_class in DataClass:
        allowed = False
        reasons: tuple[str, ...] = ("no policy is in force",)
        if decider is not None:
            ask = Ask(
                organisation="default",
                project="default",
                role=Role.DEVELOPER.value,
                action="chat",
                model=models[0] if models else "",
                data_class=data_class,
            )
            verdict = decider.decide(ask, [site], clock.now_us()).verdicts[0]
            allowed, reasons = verdict.allowed, verdict.reasons
        may[data_class.label] = allowed
        if not allowed:
            why_not[data_class.label] = reasons
    return SiteView(site=site, services=models, health=health, may=may, why_not=why_not)
