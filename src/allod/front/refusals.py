"""What the front itself has to say about an exchange, each with its stable code. Pure."""

from __future__ import annotations

from allod.front.problems import Problem
from allod.front.route import Plan
from allod.front.snapshot import ServiceEntry
from allod.front.upstream import Replica

_RETRY_AFTER_S = 2


def wrong_kind(service: ServiceEntry, endpoint: str) -> Problem:
    return Problem(
        400,
        "model.wrong-kind",
        f"the model {service.model!r} answers {service.kind} requests, not {endpoint}",
        param="model",
    )


def not_running(service: ServiceEntry) -> Problem:
    return Problem(503, "model.not-running", f"no replica of {service.model!r} is running", retry_after_s=5)


def too_many_choices(limit: int) -> Problem:
    return Problem(
        400,
        "request.too-many-choices",
        f"this model gives at most {limit} {'choice' if limit == 1 else 'choices'} for a request",
        param="n",
        hint=f"Ask with n at most {limit}, several times where more are needed",
    )


def denied(plan: Plan[Replica]) -> Problem:
    reasons = "; ".join(
        f"{v.site}: {', '.join(v.rules)}" + (f" ({v.reasons[0]})" if v.reasons else "")
        for v in plan.decision.verdicts
    )
    return Problem(
        403,
        "policy.denied",
        f"the policy allows no site for {plan.ask.data_class.label} data with {plan.ask.model!r}: "
        f"{reasons or 'nothing is known of its sites'}",
        hint=f"allod policy explain --model {plan.ask.model} --class {plan.ask.data_class.label}",
    )


def unreachable(plan: Plan[Replica]) -> Problem:
    return Problem(
        503,
        "replica.unreachable",
        f"no allowed replica of {plan.ask.model!r} can be reached",
        hint="Try again shortly; allod status shows its replicas",
        retry_after_s=_RETRY_AFTER_S,
    )


def lost() -> Problem:
    return Problem(
        502,
        "replica.lost",
        "the model's replica was lost inside this answer",
        hint="Send the request again",
    )


def no_evidence() -> Problem:
    return Problem(
        503,
        "ledger.io",
        "the receipt could not be written, so the answer is withheld",
        hint="Try again shortly; allod doctor names the cause",
        retry_after_s=5,
    )
