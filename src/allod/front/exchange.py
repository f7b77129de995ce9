"""One exchange on a hot route, from the whole body to the last byte: bytes in, bytes out, no task of its own.

What is guaranteed here: only candidates of a plan are contacted, and after a reload or the end of a fact
only those that the new plan allows as well; towards a site that is not this machine nothing leaves before
the intent is on disk; the last bytes of an answer leave after its receipt is on disk; what was begun in the
spool is ended exactly once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from allod import limits
from allod.front import body as bodies
from allod.front import refusals, splice, usage
from allod.front.answer import Answer
from allod.front.http1 import ResponseHead
from allod.front.problems import Problem
from allod.front.receipt import Record, attempts, energy_of, estimated
from allod.front.route import Plan, choose
from allod.front.terms import Terms
from allod.front.upstream import Replica, Upstream
from allod.ledger.statement import Outcome

if TYPE_CHECKING:
    from allod.front.client import ClientConnection
    from allod.front.worker import Worker

_FAILS_OVER: Final = frozenset({502, 503, 504})
_FIRST_BYTE_S: Final = limits.ENGINE_FIRST_BYTE_TIMEOUT_S
_IDLE_S: Final = limits.ENGINE_IDLE_TIMEOUT_S


class Exchange:
    """Created when the head is read; owned by its client connection until it calls `client.finished`."""

    __slots__ = (
        "_answer", "_asked", "_body", "_choices", "_client", "_durable_intent", "_fared", "_plan", "_reading",
        "_record", "_replica", "_retried", "_service_s", "_terms", "_tried", "_upstream", "_worker", "ended",
    )  # fmt: skip

    _asked: bodies.Asked
    _body: bytes
    _plan: Plan[Replica]
    _reading: float

    def __init__(self, worker: Worker, client: ClientConnection, terms: Terms) -> None:
        self._worker = worker
        self._client = client
        self._terms = terms
        self._record: Record | None = None
        self._answer: Answer | None = None
        self._replica: Replica | None = None
        self._upstream: Upstream | None = None
        self._tried: tuple[str, ...] = ()  # replicas that were contacted
        self._fared: tuple[tuple[str, Replica], ...] = ()  # how each of them fared, once that is known
        self._choices: float = 1
        self._service_s = 0.0
        self._durable_intent = False
        self._retried = False
        self.ended = False  # its receipt is written: only the disk is waited for

    # --- deciding ---

    def start(self, body: bytes, now_us: int) -> None:
        """Raises Problem before anything is begun; afterwards every outcome goes through `_end` or `_say`."""
        worker, terms = self._worker, self._terms
        self._body = body
        self._asked = asked = bodies.read(body, terms.content_type)
        self._plan = plan = terms.plan(asked.model, now_us)
        candidates: Sequence[Replica] = plan.candidates
        if asked.n is not None and asked.n > 1:
            self._choices = asked.n
            candidates = self._able(plan.candidates)
            if plan.candidates and not candidates:
                raise refusals.too_many_choices(max(r.entry.choices_max for r in plan.candidates))
        record = Record(
            terms.world, plan, terms.identity, terms.route.endpoint, body, asked, terms.parent, now_us
        )
        replica = choose(candidates, (), worker.now())
        worker.evidence.begin(record.intent(replica))
        self._record = record
        worker.counts.exchanges += 1
        if replica is not None:
            self._towards(replica)
        elif plan.candidates:
            self._say(refusals.unreachable(plan), "failed")
        else:
            self._say(refusals.denied(plan), "refused")

    def _able(self, replicas: Sequence[Replica]) -> Sequence[Replica]:
        """Those whose engine counts as many choices as were asked for."""
        return [r for r in replicas if self._choices <= r.entry.choices_max]

    # --- contacting ---

    def _towards(self, replica: Replica) -> None:
        self._replica = replica
        if replica.local or self._durable_intent:
            self._contact(replica)
        else:
            self._worker.evidence.when_durable(self._intent_durable)

    def _intent_durable(self, ok: bool) -> None:
        self._durable_intent = ok
        replica = self._replica
        if self.ended or replica is None:
            return
        if not ok:
            self._replica = None
            self._say(refusals.unreachable(self._plan), "failed")
        elif replica not in self._candidates():  # the rules changed while the disk was written
            self._next()
        else:
            self._contact(replica)

    def _contact(self, replica: Replica) -> None:
        worker = self._worker
        self._tried += (replica.id,)
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
        replica, record, client = self._replica, self._record, self._client
        assert replica is not None
        assert record is not None
        try:
            # The instructions are those of the plan: after a reload the receipt still names what was sent.
            body, strips = splice.prepare(
                self._body,
                self._asked,
                self._plan.upstream_models[replica.id],
                self._plan.service.system_prompt,
            )
        except Problem as problem:
            connection.close()
            self._leave(replica)
            replica.breaker.abandoned()
            self._say(problem, "failed")
            return
        self._answer = Answer(client, record, strips_usage=strips)
        self._upstream = connection
        client.deadline = self._worker.now() + _FIRST_BYTE_S
        head = b"%b%d\r\n\r\n" % (self._terms.route.request_line, len(body))
        connection.ask(head, body, self)

    def _candidates(self) -> Sequence[Replica]:
        """The plan's candidates, less those that the rules of this moment no longer allow."""
        plan, worker, terms = self._plan, self._worker, self._terms
        now_us = worker.clock.now_us()
        world = worker.world
        if world is terms.world and now_us < plan.valid_until_us:
            return plan.candidates
        project = world.projects.get(terms.identity.caller.project) if world else None
        if world is None or project is None:
            return ()
        try:
            service = world.service(plan.ask.model)
        except Problem:
            return ()
        now_plan = world.plan(
            terms.identity,
            service,
            plan.ask.action,
            max(terms.data_class, project.floor_class),
            terms.categories | project.categories,
            now_us,
        )
        # One that is new, or is told something else now, is for requests that were planned with it.
        told, now_told = plan.service.instructions, service.instructions
        return tuple(
            r
            for r in now_plan.candidates
            if r.site in plan.rules and r.id in plan.upstream_models and now_told.get(r.id) == told.get(r.id)
        )

    def _attempt_failed(self, outcome: str) -> None:
        replica = self._replica
        assert replica is not None
        self._leave(replica)
        replica.breaker.failed(self._worker.now())
        self._fared += ((outcome, replica),)
        self._answer = None
        self._retried = False
        self._next()

    def _next(self) -> None:
        replica = choose(self._able(self._candidates()), self._tried, self._worker.now())
        if replica is None:
            self._replica = None
            self._say(refusals.unreachable(self._plan), "failed")
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
        answer.open(head, replica.site_header, self._plan.data_class)
        self._client.deadline = self._worker.now() + _IDLE_S

    def upstream_body(self, data: bytes) -> None:
        answer = self._answer
        if answer is None:
            return
        self._client.deadline = self._worker.now() + _IDLE_S
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
        if answer.status < 400:
            if self._fared:
                self._fared += (("answered", replica),)
            self._end("answered", answer, whole=True)
        else:
            self._fared += ((f"status-{answer.status}", replica),)
            self._end("failed", answer, whole=True)
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
        self._fared += ((reason, replica),)
        problem = refusals.lost()
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
            self._client.problem(refusals.no_evidence())

    def _say(self, problem: Problem, outcome: Outcome) -> None:
        """Ends with an answer of the front's own, which has a receipt like any other."""
        record, worker = self._record, self._worker
        assert record is not None
        body = problem.body(self._client.dialect)
        self.ended = True
        leaf = record.leaf(
            replica=None,
            tried=attempts(self._fared),
            outcome=outcome,
            status=problem.status,
            output=record.key.commit("output", body),
            output_bytes=len(body),
            used=usage.NONE,
            energy=energy_of(None, 0),
            ended_us=worker.clock.now_us(),
        )
        worker.evidence.end(record.id, leaf, record.key.key)
        worker.counts.outcomes[outcome] += 1

        def told(ok: bool) -> None:
            self._client.problem(
                problem if ok else refusals.no_evidence(),
                receipt=record.id if ok else "",
                data_class=self._plan.class_label,
            )

        worker.evidence.when_durable(told)

    def _end(self, outcome: Outcome, answer: Answer | None, *, whole: bool = False) -> None:
        record, replica, worker = self._record, self._replica, self._worker
        assert record is not None
        self.ended = True
        used = usage.NONE
        status = size = 0
        if answer is not None:
            status = answer.status
            used = answer.used()
            if used is usage.NONE and not whole and answer.frames:
                used = estimated(record.input_bytes, answer.frames)
            output = answer.seal(whole=whole)
            size = answer.size
        else:
            output = record.key.commit("output", b"")
        fared = self._fared
        leaf = record.leaf(
            replica=replica,
            tried=attempts(fared) if fared or outcome != "answered" else None,
            outcome=outcome,
            status=status,
            output=output,
            output_bytes=size,
            used=used,
            energy=energy_of(replica, self._service_s),
            ended_us=worker.clock.now_us(),
        )
        worker.evidence.end(record.id, leaf, record.key.key)
        worker.counts.outcomes[outcome] += 1

    # --- the client ---

    def cancelled(self) -> None:
        """The client has gone: the engine is stopped at once, and what was produced is still receipted."""
        if self.ended or self._record is None:
            return
        replica, answer = self._replica, self._answer
        self._drop()
        if replica is not None and len(self._tried) > len(self._fared):
            self._leave(replica)
            replica.breaker.abandoned()
            self._fared += (("cancelled", replica),)
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
