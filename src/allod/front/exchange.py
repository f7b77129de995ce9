"""One exchange on a hot route, from the whole body to the last byte: bytes in, bytes out, no task of its own.

What is guaranteed here: only candidates of a plan are contacted, and after a reload or the end of a fact
only those that the new plan allows as well; towards a site that is not this machine nothing leaves before
the intent is on disk; the last bytes of an answer leave after its receipt is on disk; what was begun in the
spool is ended exactly once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from allod import limits
from allod.front import body as bodies
from allod.front import splice, usage
from allod.front.answer import Answer
from allod.front.auth import Identity
from allod.front.http1 import ResponseHead
from allod.front.problems import Problem
from allod.front.receipt import NO_ENERGY, Record, energy_of, estimated
from allod.front.route import Plan, choose
from allod.front.upstream import Replica, Upstream
from allod.ledger.commitment import commit
from allod.ledger.statement import Attempt, Outcome
from allod.policy.decision import DataClass

if TYPE_CHECKING:
    from allod.front.client import ClientConnection
    from allod.front.worker import Worker

_FAILS_OVER: Final = frozenset({502, 503, 504})
_RETRY_AFTER_S = 2


class HotRoute:
    """A path whose dialect is the engines' own."""

    __slots__ = ("action", "endpoint", "kind", "request_line")

    def __init__(self, endpoint: str, action: str, kind: str) -> None:
        self.endpoint = endpoint
        self.action = action
        self.kind = kind
        self.request_line = (
            b"POST %b HTTP/1.1\r\nhost: replica\r\ncontent-type: application/json\r\ncontent-length: "
            % endpoint.encode()
        )


class Exchange:
    """Created when the body is complete; owned by its client connection until it calls `client.finished`."""

    __slots__ = (
        "_answer", "_asked", "_attempts", "_body", "_categories", "_client", "_data_class", "_durable_intent",
        "_identity", "_parent", "_plan", "_reading", "_record", "_replica", "_retried", "_route",
        "_service_s", "_tried", "_upstream", "_worker", "_world", "ended",
    )  # fmt: skip

    def __init__(  # noqa: PLR0917 — each is another value of the same one request
        self,
        worker: Worker,
        client: ClientConnection,
        route: HotRoute,
        identity: Identity,
        carried: tuple[DataClass, frozenset[str]],
        parent: str,
    ) -> None:
        self._worker = worker
        self._client = client
        self._route = route
        self._identity = identity
        self._data_class, self._categories = carried
        self._parent = parent
        self._world = worker.world
        self._plan: Plan[Replica] | None = None
        self._record: Record | None = None
        self._asked: bodies.Asked | None = None
        self._body = b""
        self._answer: Answer | None = None
        self._attempts: list[Attempt] = []
        self._tried: list[str] = []
        self._replica: Replica | None = None
        self._upstream: Upstream | None = None
        self._reading = 0.0
        self._service_s = 0.0
        self._durable_intent = False
        self._retried = False
        self.ended = False  # its receipt is written: only the disk is waited for

    # --- deciding ---

    def start(self, body: bytes, content_type: bytes) -> None:
        """Raises Problem before anything is begun; afterwards every outcome goes through `_end`."""
        worker, route, world = self._worker, self._route, self._world
        assert world is not None
        self._asked = asked = bodies.read(body, content_type)
        service = world.service(asked.model)
        if service.kind != route.kind:
            raise Problem(
                400,
                "model.wrong-kind",
                f"the model {service.model!r} answers {service.kind} requests, not {route.endpoint}",
                param="model",
            )
        if not service.replicas:
            raise Problem(
                503, "model.not-running", f"no replica of {service.model!r} is running", retry_after_s=5
            )
        worker.evidence.check()
        now_us = worker.clock.now_us()
        plan = world.plan(self._identity, service, route.action, self._data_class, self._categories, now_us)
        self._plan = plan
        self._body = body
        self._record = record = Record(
            world=world,
            plan=plan,
            identity=self._identity,
            endpoint=route.endpoint,
            body=body,
            sampling=bodies.sampling(asked),
            parent=self._parent,
            clock=worker.clock,
        )
        replica = choose(plan.candidates, (), worker.now())
        worker.evidence.begin(record.intent(replica))
        worker.counts.exchanges += 1
        if not plan.candidates:
            self._refuse(plan)
        elif replica is None:
            self._unreachable()
        else:
            self._towards(replica)

    def _refuse(self, plan: Plan[Replica]) -> None:
        reasons = "; ".join(
            f"{v.site}: {', '.join(v.rules)}" + (f" ({v.reasons[0]})" if v.reasons else "")
            for v in plan.decision.verdicts
        )
        self._say(
            Problem(
                403,
                "policy.denied",
                f"the policy allows no site for {plan.ask.data_class.label} data with {plan.ask.model!r}: "
                f"{reasons or 'nothing is known of its sites'}",
                hint=f"allod policy explain --model {plan.ask.model} --class {plan.ask.data_class.label}",
            ),
            "refused",
        )

    def _unreachable(self) -> None:
        self._say(
            Problem(
                503,
                "replica.unreachable",
                f"no allowed replica of {self._plan.ask.model if self._plan else ''!r} can be reached",
                hint="Try again shortly; allod status shows its replicas",
                retry_after_s=_RETRY_AFTER_S,
            ),
            "failed",
        )

    # --- contacting ---

    def _towards(self, replica: Replica) -> None:
        self._replica = replica
        if replica.local or self._durable_intent:
            self._contact()
        else:
            self._worker.evidence.when_durable(self._intent_durable)

    def _intent_durable(self, ok: bool) -> None:
        self._durable_intent = ok
        if self.ended:
            return
        if not ok:
            self._replica = None
            self._unreachable()
        elif self._replica not in self._candidates():  # the rules changed while the disk was written
            self._next()
        else:
            self._contact()

    def _contact(self) -> None:
        replica = self._replica
        assert replica is not None
        worker = self._worker
        self._tried.append(replica.id)
        replica.breaker.sending()
        replica.last_used = worker.counts.exchanges
        self._reading = replica.started(worker.now())
        connection = replica.pool.take()
        if connection is not None:
            self._send(connection)
        else:
            replica.pool.connect(self._connected)

    def _connected(self, connection: Upstream | None) -> None:
        if self.ended:
            if connection is not None:
                connection.close()
        elif connection is None:
            self._attempt_failed("connect-failed")
        else:
            self._send(connection)

    def _send(self, connection: Upstream) -> None:
        replica, asked, record, plan = self._replica, self._asked, self._record, self._plan
        assert replica is not None
        assert asked is not None
        assert record is not None
        assert plan is not None
        try:
            # The instructions are those of the plan: after a reload the receipt still names what was sent.
            body, strips = splice.prepare(
                self._body, asked, replica.entry.upstream_model, plan.service.system_prompt
            )
        except Problem as problem:
            connection.close()
            self._leave(replica)
            replica.breaker.abandoned()
            self._say(problem, "failed")
            return
        self._answer = Answer(self._client, record, strips_usage=strips)
        self._upstream = connection
        self._client.deadline = self._worker.now() + limits.ENGINE_FIRST_BYTE_TIMEOUT_S
        connection.send(b"%b%d\r\n\r\n%b" % (self._route.request_line, len(body), body), self)

    def _candidates(self) -> tuple[Replica, ...]:
        """The plan's candidates, less those that the rules of this moment no longer allow."""
        plan, worker = self._plan, self._worker
        assert plan is not None
        now_us = worker.clock.now_us()
        world = worker.world
        if world is self._world and now_us < plan.decision.valid_until_us:
            return plan.candidates
        project = world.projects.get(self._identity.caller.project) if world else None
        if world is None or project is None:
            return ()
        try:
            service = world.service(plan.ask.model)
        except Problem:
            return ()
        now_plan = world.plan(
            self._identity,
            service,
            plan.ask.action,
            max(self._data_class, project.floor_class),
            self._categories | project.categories,
            now_us,
        )
        return tuple(r for r in now_plan.candidates if r.site in plan.rules)

    def _attempt_failed(self, outcome: str) -> None:
        replica = self._replica
        assert replica is not None
        self._leave(replica)
        replica.breaker.failed(self._worker.now())
        self._attempts.append(Attempt(outcome=outcome, replica=replica.id, site=replica.site))
        self._answer = None
        self._retried = False
        self._next()

    def _next(self) -> None:
        replica = choose(self._candidates(), self._tried, self._worker.now())
        if replica is None:
            self._replica = None
            self._unreachable()
        else:
            self._towards(replica)

    def _leave(self, replica: Replica) -> None:
        self._upstream = None
        self._service_s += replica.finished(self._worker.now(), self._reading)

    # --- the answer, as the replica gives it (upstream.Sink) ---

    def upstream_head(self, head: ResponseHead) -> None:
        if head.status in _FAILS_OVER:
            self._drop()
            self._attempt_failed(f"status-{head.status}")
            return
        replica, answer = self._replica, self._answer
        assert replica is not None
        assert answer is not None
        replica.breaker.succeeded()
        answer.open(head, replica.site_header)
        self._client.deadline = self._worker.now() + limits.ENGINE_IDLE_TIMEOUT_S

    def upstream_body(self, data: bytes) -> None:
        answer = self._answer
        if answer is None:
            return
        self._client.deadline = self._worker.now() + limits.ENGINE_IDLE_TIMEOUT_S
        answer.take(data)

    def upstream_end(self) -> None:
        answer, replica = self._answer, self._replica
        if answer is None or replica is None:
            return
        self._leave(replica)
        if answer.unfinished:
            replica.breaker.failed(self._worker.now())
            self._cut("stream-cut", replica, answer)
            return
        outcome = "answered" if answer.status < 400 else f"status-{answer.status}"
        self._attempts.append(Attempt(outcome=outcome, replica=replica.id, site=replica.site))
        self._end("answered" if answer.status < 400 else "failed", answer, whole=True)
        self._worker.evidence.when_durable(self._answer_durable)

    def upstream_lost(self, reason: str) -> None:
        answer, replica, upstream = self._answer, self._replica, self._upstream
        if answer is None or replica is None or upstream is None:
            return
        if answer.terminated:
            self.upstream_end()
        elif answer.relayed:
            self._leave(replica)
            replica.breaker.failed(self._worker.now())
            self._cut(reason, replica, answer)
        elif reason == "reset" and not upstream.fresh and not upstream.answered and not self._retried:
            self._retried = True  # an idle connection that the replica had closed: once more, on a new one
            self._answer = None
            self._upstream = None
            replica.pool.connect(self._connected)
        else:
            self._attempt_failed(reason)

    def upstream_full(self, full: bool) -> None:
        """The request is in memory anyway: nothing is to be held back."""

    # --- ending ---

    def _cut(self, reason: str, replica: Replica, answer: Answer) -> None:
        """The replica failed inside an answer: the client is told so, and never that it was complete."""
        self._attempts.append(Attempt(outcome=reason, replica=replica.id, site=replica.site))
        problem = Problem(
            502,
            "replica.lost",
            "the model's replica was lost inside this answer",
            hint="Send the request again",
        )
        if not answer.relayed:
            self._answer = None
            self._say(problem, "failed")
            return
        last = answer.failure(problem)
        self._end("failed", answer)

        def told(ok: bool) -> None:
            if ok and last:
                self._client.write(last)
                self._client.leave()
            else:
                self._client.abort()

        self._worker.evidence.when_durable(told)

    def _answer_durable(self, ok: bool) -> None:
        answer = self._answer
        assert answer is not None
        if ok:
            self._client.write(answer.last())
            self._client.finished()
        elif answer.relayed:
            self._client.abort()
        else:
            self._client.problem(_no_evidence())

    def _say(self, problem: Problem, outcome: Outcome) -> None:
        """Ends with an answer of the front's own, which has a receipt like any other."""
        record, worker, plan = self._record, self._worker, self._plan
        assert record is not None
        assert plan is not None
        body = problem.body(self._client.dialect)
        self.ended = True
        leaf = record.leaf(
            replica=None,
            attempts=tuple(self._attempts),
            outcome=outcome,
            status=problem.status,
            output=commit(record.key, "output", body),
            output_bytes=len(body),
            used=usage.NONE,
            energy=NO_ENERGY,
            ended_us=worker.clock.now_us(),
        )
        worker.evidence.end(record.id, leaf, record.key)
        worker.counts.count(outcome)

        def told(ok: bool) -> None:
            self._client.problem(
                problem if ok else _no_evidence(),
                receipt=record.id if ok else "",
                data_class=plan.ask.data_class.label,
            )

        worker.evidence.when_durable(told)

    def _end(self, outcome: Outcome, answer: Answer | None, *, whole: bool = False) -> None:
        record, replica, worker = self._record, self._replica, self._worker
        assert record is not None
        self.ended = True
        used = answer.used() if answer is not None else usage.NONE
        if used is usage.NONE and not whole and answer is not None and answer.frames:
            used = estimated(record.input_bytes, answer.frames)
        leaf = record.leaf(
            replica=replica,
            attempts=tuple(self._attempts),
            outcome=outcome,
            status=answer.status if answer is not None else 0,
            output=answer.seal(whole=whole) if answer is not None else commit(record.key, "output", b""),
            output_bytes=answer.size if answer is not None else 0,
            used=used,
            energy=energy_of(replica, self._service_s) if replica is not None else NO_ENERGY,
            ended_us=worker.clock.now_us(),
        )
        worker.evidence.end(record.id, leaf, record.key)
        worker.counts.count(outcome)

    # --- the client ---

    def cancelled(self) -> None:
        """The client has gone: the engine is stopped at once, and what was produced is still receipted."""
        if self.ended or self._record is None:
            return
        replica, answer = self._replica, self._answer
        self._drop()
        if replica is not None and len(self._tried) > len(self._attempts):
            self._leave(replica)
            replica.breaker.abandoned()
            self._attempts.append(Attempt(outcome="cancelled", replica=replica.id, site=replica.site))
        self._end("cancelled", answer)
        self._worker.evidence.when_durable(lambda ok: None)

    def timed_out(self) -> None:
        """Nothing came from the replica for too long."""
        if not self.ended and self._upstream is not None:
            upstream = self._upstream
            upstream.close()
            self.upstream_lost("timeout")

    def client_full(self, full: bool) -> None:
        """Back-pressure: the replica is not read while the client does not read."""
        if self._upstream is not None:
            if full:
                self._upstream.pause()
            else:
                self._upstream.resume()

    def _drop(self) -> None:
        upstream, self._upstream = self._upstream, None
        if upstream is not None:
            upstream.close()


def _no_evidence() -> Problem:
    return Problem(
        503,
        "ledger.io",
        "the receipt could not be written, so the answer is withheld",
        hint="Try again shortly; allod doctor names the cause",
        retry_after_s=5,
    )
