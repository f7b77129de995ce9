"""What is written down about one exchange: its intent before, its statement after. Pure; the spool is
elsewhere.

Nearly all of both records is the same for every exchange of one plan with one replica. A `Form` has that
part encoded, once, by the ledger's own encoder, with holes for the rest; a `Record` fills them. What comes
out is byte for byte what `ledger.intent.encode` and `ledger.statement.encode` make of the same values.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from allod.front import body as bodies
from allod.front.auth import Identity
from allod.front.route import Plan
from allod.front.upstream import Replica
from allod.front.world import World
from allod.ledger.commitment import RecordKey, new_key, receipt_id
from allod.ledger.intent import Intent
from allod.ledger.statement import Attempt, Energy, Outcome, Statement, Usage

NO_ENERGY: Final = Energy(method="none")
_ENERGY_METHOD: Final = "estimate:active-watts-x-service-time"

_json: Final = msgspec.json.Encoder(order="sorted").encode
_pack: Final = msgspec.msgpack.Encoder().encode

# Where a form leaves room, in the order of the fields; `%b` takes bytes that are encoded already.
_STATEMENT_HOLES: Final = {
    "actor": b'"%b"', "attempts": b"%b", "ended_us": b"%d", "energy": b"%b", "id": b'"%b"', "input": b'"%b"',
    "input_bytes": b"%d", "key_check": b'"%b"', "outcome": b'"%b"', "output": b'"%b"',
    "output_bytes": b"%d", "parent": b"%b", "sampling": b"%b", "started_us": b"%d", "status": b"%d",
    "usage": b'{"input_tokens":%d,"output_tokens":%d,"pages":%d,"source":"%b"}',
}  # fmt: skip
_HEX: Final = b"\xd9\x40%b"  # msgpack: a text of 64 bytes
_INTENT_HOLES: Final = {
    "id": b"\xbc%b", "actor": _HEX, "input": _HEX, "input_bytes": b"%b", "key": b"\xc4\x20%b",
    "key_check": _HEX, "started_us": b"%b", "parent": b"%b", "sampling": b"%b",
}  # fmt: skip
_NO_PARENT: Final = (_pack(""), _json(""))


class Form:
    """The receipts of one plan with one replica (None: no replica was used), but for what differs each
    time.
    """

    __slots__ = ("answered", "intent", "leaf")

    def __init__(self, world: World, plan: Plan[Replica], replica: Replica | None, endpoint: str) -> None:
        ask = plan.ask
        if replica is not None:
            rules = plan.rules[replica.site]
        else:  # the rules that denied the others
            rules = tuple(dict.fromkeys(rule for refusal in plan.refused for rule in refusal.rules))
        fixed: dict[str, Any] = {
            "action": ask.action,
            "categories": plan.categories,
            "data_class": plan.class_label,
            "decision": "allow" if plan.candidates else "deny",
            "endpoint": endpoint,
            "model": ask.model,
            "organisation": ask.organisation,
            "origin": world.origin,
            "policy": plan.decision.policy,
            "project": ask.project,
            "refused": plan.refused,
            "rules": rules,
        }
        if replica is not None:
            entry = replica.entry
            fixed |= {
                "engine": entry.engine,
                "engine_digest": entry.engine_digest,
                "instructions": plan.service.instructions.get(replica.id, ""),
                "model_digest": entry.model_digest,
                "quantisation": entry.quantisation,
                "site": entry.site,
                "site_facts": world.site_facts.get(entry.site, ""),
            }
        self.intent = _intent_form({**fixed, "replica": replica.id if replica is not None else ""})
        self.leaf = _statement_form(fixed)
        self.answered = attempts((("answered", replica),)) if replica is not None else b"[]"


def _statement_form(fixed: dict[str, Any]) -> bytes:
    fields = {f.name: f for f in msgspec.structs.fields(Statement)}
    pieces = []
    for name in sorted(fields):
        value = _STATEMENT_HOLES.get(name)
        if value is None:
            value = _escaped(_json(fixed.get(name, fields[name].default)))
        pieces.append(b'"%b":%b' % (name.encode(), value))
    return b"{" + b",".join(pieces) + b"}"


def _intent_form(fixed: dict[str, Any]) -> bytes:
    fields = msgspec.structs.fields(Intent)
    pieces = [b"\xdc" + len(fields).to_bytes(2, "big")]  # msgpack: an array of so many
    for field in fields:
        value = _INTENT_HOLES.get(field.name)
        pieces.append(value if value is not None else _escaped(_pack(fixed.get(field.name, field.default))))
    return b"".join(pieces)


def _escaped(encoded: bytes) -> bytes:
    return encoded.replace(b"%", b"%%")


class Record:
    """What is known of an exchange when the decision is taken."""

    __slots__ = (
        "_actor", "_forms", "_id", "_input", "_parent", "_plan", "_sampling", "_world", "endpoint", "id",
        "input_bytes", "key", "started_us",
    )  # fmt: skip

    def __init__(  # noqa: PLR0917 — each is another fact about the same exchange
        self,
        world: World,
        plan: Plan[Replica],
        identity: Identity,
        endpoint: str,
        body: bytes,
        asked: bodies.Asked,
        parent: str,
        now_us: int,
    ) -> None:
        self.started_us = now_us
        self.id = id_ = receipt_id(now_us)
        self._id = id_.encode()
        self.key = key = RecordKey(new_key())
        self._actor = key.commit("actor", identity.actor)
        self._input = key.commit("input", body)
        self.input_bytes = len(body)
        self._sampling = sampling(asked)
        self._parent = (_pack(parent), _json(parent)) if parent else _NO_PARENT
        self._world = world
        self._plan = plan
        self.endpoint = endpoint

    def _form(self, replica: Replica | None) -> Form:
        forms = self._plan.forms
        form = forms.get(replica)
        if form is None:
            form = forms[replica] = Form(self._world, self._plan, replica, self.endpoint)
        return form

    def intent(self, replica: Replica | None) -> bytes:
        """The intent's bytes, as `Spool.begin` takes them."""
        key = self.key
        return self._form(replica).intent % (
            self._id, self._actor, self._input, _pack(self.input_bytes), key.key, key.check,
            _pack(self.started_us), self._parent[0], self._sampling[0],
        )  # fmt: skip

    def leaf(
        self,
        *,
        replica: Replica | None,
        tried: bytes | None,
        outcome: Outcome,
        status: int,
        output: bytes,
        output_bytes: int,
        used: Usage,
        energy: bytes,
        ended_us: int,
    ) -> bytes:
        """The statement's bytes. `output` is the commitment made with this record's key; `tried` is what
        `attempts` gives, None for a first replica that answered; `energy` is what `energy_of` gives.
        """
        form = self._form(replica)
        return form.leaf % (
            self._actor, form.answered if tried is None else tried, ended_us, energy, self._id, self._input,
            self.input_bytes, self.key.check, outcome.encode(), output, output_bytes, self._parent[1],
            self._sampling[1], self.started_us, status,
            used.input_tokens, used.output_tokens, used.pages, used.source.encode(),
        )  # fmt: skip


def attempts(tried: tuple[tuple[str, Replica], ...] | list[tuple[str, Replica]]) -> bytes:
    """The statement's `attempts`: how each contacted replica fared, in order."""
    return _json(
        [Attempt(outcome=outcome, replica=replica.id, site=replica.site) for outcome, replica in tried]
    )


def sampling(asked: bodies.Asked) -> tuple[bytes, bytes]:
    """The sampling parameters as an intent and as a statement have them."""
    named = bodies.sampling(asked)
    return (_pack(named), _json(named)) if len(named) > 1 or named["seed"] else _NO_SAMPLING


_NO_SAMPLING: Final = (_pack({"seed": ""}), _json({"seed": ""}))
_NO_ENERGY: Final = _json(NO_ENERGY)
_ENERGY: Final = _json(Energy(method=_ENERGY_METHOD, microjoules=0)).replace(b"0", b"%d")


def energy_of(replica: Replica | None, seconds: float) -> bytes:
    """The statement's `energy`: the configured draw of the machine times the apportioned service time;
    "none" without a configured draw.
    """
    watts = replica.entry.active_watts if replica is not None else None
    return _NO_ENERGY if watts is None else _ENERGY % round(watts * seconds * 1_000_000)


def estimated(input_bytes: int, frames: int) -> Usage:
    """For an answer that was cut before the engine reported: four bytes a token in, one token a frame out."""
    return Usage(input_tokens=input_bytes // 4, output_tokens=frames, source="estimated")
