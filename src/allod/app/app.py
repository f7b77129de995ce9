"""The node's control side as one object: identity, policy, sites, services and ledger, wired once.

`App` implements `api.ports.NodePort`. Three promises shape it: what the fronts decide by changes only as one
whole snapshot; a failure to read new rules, sites or keys leaves the old snapshot in force; and nothing here
is needed for an exchange that is already on its way.
"""

from __future__ import annotations

import asyncio
import contextlib
import difflib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec

from allod import __version__, limits
from allod.api.inner import InnerClient
from allod.api.ports import (
    ExchangeView,
    Inner,
    InnerAnswer,
    KeyView,
    ModelPapersView,
    NewKey,
    NodeStatus,
    ProjectView,
    ReceiptFormat,
    ReceiptView,
    SiteView,
    Verification,
)
from allod.app import evidence, model_papers, readiness, snapshots, views
from allod.app.fronts import FrontsChannel
from allod.app.sequencer import Sequencer
from allod.app.services import Plan, plan
from allod.app.witnesses import Witnesses
from allod.clock import Clock
from allod.config import Config, Home
from allod.config import load as load_config
from allod.errors import AllodError, NotFound, NotReady
from allod.front.snapshot import Snapshot
from allod.identity.caller import Caller, Role
from allod.identity.rows import KeyRow, ProjectRow
from allod.identity.store import IdentityStore
from allod.ledger.log import Log
from allod.policy.decide import Decider
from allod.policy.decision import Ask
from allod.policy.explain import Explanation
from allod.policy.explain import explain as explain_policy
from allod.policy.pack import Pack
from allod.policy.pack import load as load_policy
from allod.runtime.sandbox import probe
from allod.runtime.supervisor import Supervisor
from allod.signing import FileSigner
from allod.sites.facts import Site
from allod.sites.load import LOCAL, load_sites

T = TypeVar("T")

REVOKE_WITHIN_S = 2.0  # a front takes a snapshot within milliseconds; one that does not is reported
_DATABASE_LOOK_S = 2.0  # the path does not need it; people who look at the status do


class _Rules(msgspec.Struct, frozen=True):
    """What policy and site files said when they were last read whole."""

    pack: Pack
    decider: Decider
    sites: dict[str, Site]
    plan: Plan


class App:
    def __init__(
        self,
        home: Home,
        config: Config,
        url: str,
        workers: int,
        clock: Clock,
        *,
        tell_first_key: Callable[[str], None],
    ) -> None:
        """`tell_first_key` is called where the database, and with it the first key, came after the start."""
        self._tell_first_key = tell_first_key
        self._home = home
        self._config = config
        self._url = url
        self._workers = workers
        self._clock = clock
        self._started_us = clock.now_us()
        self._identity = IdentityStore(config.database_url(home), clock)
        self._fronts = FrontsChannel(home.run / "fronts.sock")
        self._inner = InnerClient(lambda: sorted(home.run.glob("front-*.sock")))
        self._sandbox = probe()
        self._supervisor = Supervisor(home.run, home.logs, clock, self._sandbox)
        log = Log.open(home.ledger, ledger_signers(home), clock)
        self._sequencer = Sequencer(log, home.spool, clock, interval_s=config.ledger.integrate_interval_s)
        self._witnesses = Witnesses(config.ledger.witness, self._sequencer)
        self._rules: _Rules | None = None
        self._snapshot: Snapshot | None = None
        self._publishing = asyncio.Lock()
        self._database_failure: AllodError | None = None
        self._rules_failure: AllodError | None = None
        self._tasks: list[asyncio.Task[None]] = []

    # --- life -----------------------------------------------------------------------------------------

    async def start(self) -> str | None:
        """Brings everything up. Returns the first admin key on the very first start.

        A database that is away does not stop the start: the fronts go on with the snapshot they have, and
        this one comes back by itself.
        """
        self._sequencer.start()
        await self._fronts.start()
        with contextlib.suppress(AllodError):
            self._snapshot = snapshots.read(self._snapshot_file)
        first_key = await self._open_database()
        await self._reload()
        self._tasks = [
            asyncio.create_task(self._watch_the_database()),
            asyncio.create_task(self._witnesses.run()),
        ]
        return first_key

    async def settled(self, *, within_s: float) -> list[str]:
        """Waits until every replica is ready or known not to become so; returns what is not, with why."""
        until = self._clock.monotonic() + within_s

        async def outcome(id_: str) -> str:
            try:
                await self._supervisor.wait_ready(id_, until)
            except AllodError as e:
                return e.message
            return ""

        outcomes = await asyncio.gather(*(outcome(s.id) for s in self._supervisor.views()))
        plan = self._rules.plan if self._rules else None
        failed = [f"{f.model}: {f.error.message}" for f in (*plan.failed, *plan.unreachable)] if plan else []
        return [o for o in outcomes if o] + failed

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await self._supervisor.stop_all()
        await self._fronts.stop()
        await asyncio.to_thread(self._sequencer.stop)
        self._identity.close()

    @property
    def _snapshot_file(self) -> Path:
        return self._home.run / "snapshot.msgpack"

    async def _open_database(self) -> str | None:
        first_time = self._snapshot is None and not self._home.config_file.with_name(".bootstrapped").exists()

        def open_it() -> str | None:
            self._identity.migrate(create=first_time)
            new = self._identity.bootstrap()
            self._home.config_file.with_name(".bootstrapped").touch(mode=0o600)
            return new.secret if new else None

        try:
            secret = await asyncio.to_thread(open_it)
        except AllodError as e:
            self._database_failure = e
            return None
        self._database_failure = None
        return secret

    async def _watch_the_database(self) -> None:
        """Knows whether it answers, and takes up what it holds as soon as it is back."""
        while True:
            await asyncio.sleep(_DATABASE_LOOK_S)
            if self._database_failure is None:
                try:
                    await asyncio.to_thread(self._identity.acts, limit=1)
                except AllodError as e:
                    self._database_failure = e
                continue
            if secret := await self._open_database():
                self._tell_first_key(secret)
            with contextlib.suppress(AllodError):
                await self._publish()

    # --- what the fronts decide by ----------------------------------------------------------------------

    async def reload(self) -> int:
        """Reads configuration, policy and site files again, and returns once every front decides by them.

        On any error the old rules stay in force.
        """
        version = await self._reload()
        await self._fronts.acknowledged(version, within_s=REVOKE_WITHIN_S)
        return version

    async def _reload(self) -> int:
        try:
            config = load_config(self._home)
            rules = await asyncio.to_thread(_read_rules, config, self._home)
        except AllodError as e:
            self._rules_failure = e
            if self._rules is not None or self._snapshot is None:
                raise
            return self._snapshot.version
        self._config, self._rules, self._rules_failure = config, rules, None
        await self._supervisor.ensure(rules.plan.specs)
        return await self._publish()

    async def _publish(self) -> int:
        """Builds the next snapshot and hands it to the fronts. Without a database the known keys stay."""
        async with self._publishing:
            if self._rules is None:
                raise self._rules_failure or NotReady("policy.not-loaded", "no policy has been read yet")
            rows = await self._rows()
            if rows is None:
                return self._snapshot.version if self._snapshot else 0
            keys, projects = rows
            snapshot = snapshots.build(
                version=(self._snapshot.version if self._snapshot else 0) + 1,
                origin=self._config.node.origin,
                keys=keys,
                projects=projects,
                sites=self._rules.sites,
                services=self._rules.plan.services,
                policy=self._rules.pack,
            )
            await asyncio.to_thread(snapshots.write, self._snapshot_file, snapshot)
            self._snapshot = snapshot
            self._fronts.announce(snapshot.version)
            return snapshot.version

    async def _rows(self) -> tuple[Sequence[KeyRow], Sequence[ProjectRow]] | None:
        try:
            rows = await asyncio.to_thread(self._identity.snapshot_rows)
        except AllodError as e:
            self._database_failure = e
            return snapshots.rows_of(self._snapshot) if self._snapshot else None
        self._database_failure = None
        return rows

    async def _changed(self, change: Callable[[], T]) -> T:
        """Applies a change to the database, then waits until every front decides by it."""
        done = await asyncio.to_thread(change)
        version = await self._publish()
        if self._database_failure is not None:
            # It went away in between: the snapshot still has the old keys, and saying "done" would be untrue.
            raise self._database_failure
        await self._fronts.acknowledged(version, within_s=REVOKE_WITHIN_S)
        return done

    # --- NodePort: looking ------------------------------------------------------------------------------

    async def status(self) -> NodeStatus:
        size, checkpoint_us = await self._sequencer.ask(lambda log: (log.size, self._sequencer.integrated_us))
        rules = self._rules
        states = {s.id: s for s in self._supervisor.views()}
        checks = readiness.checks(
            fronts=self._fronts.connected,
            workers=self._workers,
            snapshot=self._snapshot,
            rules_failure=self._rules_failure,
            database_failure=self._database_failure,
            sequencer=self._sequencer,
            witnesses=self._witnesses.failures,
            sandbox=self._sandbox,
            states=states,
            failed=(*rules.plan.failed, *rules.plan.unreachable) if rules else (),
            home=self._home,
        )
        return NodeStatus(
            origin=self._config.node.origin,
            version=__version__,
            ready=readiness.is_ready(checks),
            started_us=self._started_us,
            listen=self._url,
            workers=self._workers,
            ledger_size=size,
            checkpoint_us=checkpoint_us,
            spooled=await asyncio.to_thread(self._sequencer.waiting),
            services=views.services(rules.plan, states) if rules else (),
            checks=checks,
        )

    async def sites(self) -> list[SiteView]:
        rules = self._require_rules()
        circuits = views.circuits(self._fronts.counters(), rules.plan)
        return views.sites(rules.sites, rules.plan, rules.decider, circuits, self._clock)

    async def explain(self, ask: Ask, language: str = "en") -> Explanation:
        """Over the sites that serve the model; over all of them where no model is named."""
        rules = self._require_rules()
        service = next((s for s in rules.plan.services.values() if ask.model in (s.model, *s.aliases)), None)
        if ask.model and service is None:
            raise _unknown_model(ask.model, rules.plan)
        names = [r.site for r in service.replicas] if service else list(rules.sites)
        offered = [rules.sites[n] for n in dict.fromkeys(names)]
        return explain_policy(rules.decider, ask, offered, self._clock.now_us(), language)

    async def model_papers(self, name: str) -> ModelPapersView:
        plan = self._require_rules().plan
        return await asyncio.to_thread(model_papers.view, self._home, self._config, plan, name)

    def _require_rules(self) -> _Rules:
        if self._rules is None:
            raise self._rules_failure or NotReady("policy.not-loaded", "no policy has been read yet")
        return self._rules

    # --- NodePort: evidence -----------------------------------------------------------------------------

    async def exchanges(
        self, *, organisation: str | None, project: str | None, limit: int, before: int | None = None
    ) -> list[ExchangeView]:
        return await self._sequencer.ask(
            lambda log: evidence.latest(log, organisation, project, limit, before)
        )

    async def receipt(self, receipt_id: str) -> ReceiptView:
        return await self._patiently(lambda log: evidence.receipt(log, receipt_id))

    async def receipt_file(self, receipt_id: str, form: ReceiptFormat) -> bytes:
        signer, now_s = ledger_signers(self._home)[0], self._clock.now_us() // 1_000_000
        return await self._patiently(lambda log: evidence.receipt_file(log, signer, receipt_id, form, now_s))

    async def verify_receipt(self, receipt_id: str) -> Verification:
        return await self._patiently(lambda log: evidence.verify(log, receipt_id))

    async def erase_receipt_key(self, receipt_id: str, *, by: Caller) -> None:
        await self._patiently(lambda log: log.erase(receipt_id, by=by.key_id))

    async def checkpoint(self) -> bytes:
        return await self._sequencer.ask(lambda log: log.cosigned() or log.checkpoint())

    async def ledger_file(self, path: str) -> bytes:
        return await asyncio.to_thread(evidence.ledger_file, self._home.ledger, path)

    async def _patiently(self, question: Callable[[Log], T]) -> T:
        """A receipt that is durable may wait a moment for its place in the tree; so does who asks for it."""
        deadline = self._clock.monotonic() + limits.RECEIPT_WAIT_S
        while True:
            try:
                return await self._sequencer.ask(question)
            except NotFound as e:
                if e.code != "receipt.unknown" or self._clock.monotonic() > deadline:
                    raise
            self._sequencer.hurry()
            await asyncio.sleep(0.02)

    # --- NodePort: who ----------------------------------------------------------------------------------

    async def create_key(
        self, *, by: Caller, project: str, role: Role, label: str, lifetime_days: int
    ) -> NewKey:
        made = await self._changed(
            lambda: self._identity.create_key(
                by=by, project=project, role=role, label=label, lifetime_days=lifetime_days
            )
        )
        return NewKey(key=views.key(made.key), secret=made.secret)

    async def list_keys(self, *, organisation: str | None) -> list[KeyView]:
        found = await asyncio.to_thread(self._identity.list_keys, organisation=organisation)
        return [views.key(k) for k in found]

    async def revoke_key(self, key_id: str, *, by: Caller) -> KeyView:
        return views.key(await self._changed(lambda: self._identity.revoke_key(key_id, by=by)))

    async def create_organisation(self, name: str, *, by: Caller) -> str:
        return await asyncio.to_thread(self._identity.create_organisation, name, by=by)

    async def create_project(self, project: ProjectView, *, by: Caller) -> ProjectView:
        row = ProjectRow(
            id=project.id,
            organisation=project.organisation,
            default_class=int(project.default_class),
            floor_class=int(project.floor_class),
            categories=frozenset(project.categories),
        )
        return views.project(await self._changed(lambda: self._identity.create_project(row, by=by)))

    async def list_projects(self, *, organisation: str | None) -> list[ProjectView]:
        found = await asyncio.to_thread(self._identity.list_projects, organisation=organisation)
        return [views.project(p) for p in found]

    async def authenticate(self, presented: str) -> Caller:
        return await asyncio.to_thread(self._identity.authenticate, presented)

    async def caller(self, key_id: str) -> Caller:
        return await asyncio.to_thread(self._identity.caller, key_id)

    # --- NodePort: acting -------------------------------------------------------------------------------

    async def call(self, inner: Inner) -> InnerAnswer:
        return await self._inner.call(inner)


def ledger_signers(home: Home) -> list[FileSigner]:
    """The log's keys, Ed25519 first. NotFound `home.incomplete` where `allod init` has not made them."""
    paths = (home.ledger_ed25519_key, home.ledger_mldsa44_key)
    if missing := [p.name for p in paths if not p.exists()]:
        raise NotFound("home.incomplete", f"{home.keys} lacks {', '.join(missing)}", hint="allod init")
    return [FileSigner.load(p) for p in paths]


def _read_rules(config: Config, home: Home) -> _Rules:
    pack = load_policy(home.policy)
    decider = Decider(pack.text, pack.schema)
    remotes = load_sites(home.sites)
    sites = {LOCAL: config.site.site} | {r.site.name: r.site for r in remotes}
    return _Rules(pack, decider, sites, plan(config, home, remotes))


def _unknown_model(name: str, known: Plan) -> NotFound:
    near = difflib.get_close_matches(name, list(known.services), 1)
    hint = f"did you mean {near[0]!r}?" if near else f"served here: {', '.join(known.services) or 'nothing'}"
    return NotFound("model.unknown", f"no model {name[:64]!r} is served here", hint=hint)
