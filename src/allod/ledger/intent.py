"""What a front worker writes down before an exchange leaves it, and the receipt if it dies there.

An `Intent` is everything that is known once the decision is taken. If the worker is killed before it could
write the outcome, `interrupted` turns the intent into a statement that says exactly that: an answer may have
begun, what was sent is not known, and the tokens are not counted.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from allod.ledger.statement import Attempt, Refusal, Statement


class Intent(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """The first record of an exchange. `id` stays the first field: the spool reads it from the encoded bytes.

    Fields mean what they mean in `Statement`; `key` is the 32-byte record key, `replica` the chosen replica.
    """

    id: str
    action: str
    actor: str
    categories: tuple[str, ...]
    data_class: str
    endpoint: str
    input: str
    input_bytes: int
    key: bytes
    key_check: str
    model: str
    organisation: str
    origin: str
    policy: str
    project: str
    started_us: int
    decision: Literal["allow", "deny"] = "allow"
    engine: str = ""
    engine_digest: str = ""
    instructions: str = ""
    model_digest: str = ""
    parent: str = ""
    quantisation: str = ""
    refused: tuple[Refusal, ...] = ()
    replica: str = ""
    rules: tuple[str, ...] = ()
    sampling: dict[str, str] = {}
    site: str = ""
    site_facts: str = ""


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(Intent)


def encode(intent: Intent) -> bytes:
    """msgpack, as `Spool.begin` takes it."""
    return _ENCODER.encode(intent)


def decode(data: bytes) -> Intent:
    """Raises msgspec.ValidationError / DecodeError on anything else."""
    return _DECODER.decode(data)


def interrupted(intent: Intent, ended_us: int) -> Statement:
    """The statement for an exchange whose worker died. `ended_us` is when that was found out.

    `output` is empty, not a commitment to nothing: what left the machine is unknown.
    """
    attempts = (
        (Attempt(outcome="interrupted", replica=intent.replica, site=intent.site),) if intent.site else ()
    )
    return Statement(
        action=intent.action,
        actor=intent.actor,
        attempts=attempts,
        categories=intent.categories,
        data_class=intent.data_class,
        decision=intent.decision,
        ended_us=max(ended_us, intent.started_us),
        endpoint=intent.endpoint,
        engine=intent.engine,
        engine_digest=intent.engine_digest,
        id=intent.id,
        input=intent.input,
        input_bytes=intent.input_bytes,
        instructions=intent.instructions,
        key_check=intent.key_check,
        model=intent.model,
        model_digest=intent.model_digest,
        origin=intent.origin,
        outcome="interrupted",
        output="",
        output_bytes=0,
        organisation=intent.organisation,
        parent=intent.parent,
        policy=intent.policy,
        project=intent.project,
        quantisation=intent.quantisation,
        refused=intent.refused,
        rules=intent.rules,
        sampling=intent.sampling,
        site=intent.site,
        site_facts=intent.site_facts,
        started_us=intent.started_us,
        status=0,
    )
