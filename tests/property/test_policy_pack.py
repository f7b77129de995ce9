"""The bundled pack against what its sentences say, over random sites, callers and data.

The oracle below was written from the sentences, in plain Python; it shares no code with the mapping or the
rules.
"""

from __future__ import annotations

import contextlib
import itertools
import random
import shutil
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule
from policy_sites import GOOD

from allod.errors import Unprocessable
from allod.front.breaker import Breaker
from allod.front.route import Plan, choose
from allod.front.snapshot import ServiceEntry
from allod.policy.decide import Decider
from allod.policy.decision import CATEGORIES, Ask, DataClass
from allod.policy.pack import bundled, install, load
from allod.sites.facts import Fact, Site

TODAY = datetime(2026, 11, 21, 12, tzinfo=UTC)
NOW_US = int(TODAY.timestamp()) * 1_000_000


def codes(text: str) -> set[str]:
    return set(text.split())


EEA = codes("AT BE BG HR CY CZ DK EE FI FR DE GR HU IE IT LV LT LU MT NL PL PT RO SK SI ES SE IS LI NO EU")
ADEQUATE = codes("AD AR CA CH FO GB GG IL IM JE JP KR NZ UY")
SENSITIVE = {"health", "biometric", "criminal", "children", "secret"}
FACTS = [f for f in Site.__struct_fields__ if f not in ("name", "local")]

PACK = bundled()
DECIDER = Decider(PACK.text, PACK.schema)


# --- the oracle ---------------------------------------------------------------------------------------


def known_on(day: str):
    """What a fact says on a day (ISO 8601)."""
    return lambda fact: None if fact.expires and day > fact.expires else fact.value


def subset(values, allowed: set[str]) -> bool:
    return bool(values) and set(values) <= allowed


def may(ask: Ask, site: Site, day: str = TODAY.date().isoformat()) -> bool:
    known = known_on(day)
    if ask.role not in ("service", "developer", "admin", "owner"):
        return False
    if site.local:
        return True
    internal = ask.data_class >= 1 or ask.categories
    confidential = ask.data_class >= 2 or ask.categories & SENSITIVE
    if internal:
        if known(site.trains_on_content) is not False:
            return False
        for places in (site.storage_countries, site.processing_countries):
            if not subset(known(places), EEA | ADEQUATE):
                return False
        basis = known(site.transfer_basis) or ""
        if basis != "none-needed" and not basis.startswith("adequacy:"):
            return False
    if confidential:
        if known(site.establishment) not in EEA:
            return False
        for places in (
            site.controllers,
            site.storage_countries,
            site.processing_countries,
            site.support_countries,
        ):
            if not subset(known(places), EEA):
                return False
        for flag in (site.cloud_act, site.fisa_702, site.retains_content):
            if known(flag) is not False:
                return False
    if ask.data_class >= 3:
        return False
    if "health" in ask.categories:
        held = known(site.certificates) or []
        if not any(c.split(" ")[0] in ("HDS", "SecNumCloud") and "planned" not in c for c in held):
            return False
    return not ("financial" in ask.categories and (not known(site.operator) or not known(site.establishment)))


# --- random sites -------------------------------------------------------------------------------------

DAYS = ["", "2026-11-20", "2026-11-21", "2027-01-31"]
COUNTRIES = st.sampled_from(["FR", "DE", "NO", "EU", "CH", "GB", "US", "CN", "fr", "unknown"])


def facts(values):
    def build(value, expires):
        return Fact(value=value, source="test", date="2026-11-21", expires=expires)

    return st.builds(build, st.one_of(st.none(), values), st.sampled_from(DAYS))


def good_or(good, values):
    """Half of the time the value that opens, so that allowed sites are met as often as refused ones."""
    return facts(st.one_of(st.just(good), st.just(good), st.just(good), values))


LISTS = st.lists(COUNTRIES, max_size=3)
CERTIFICATES = st.lists(
    st.sampled_from(["HDS v2", "SecNumCloud 3.2", "HDS planned", "ISO 27001", "C5:2020 type 2"]), max_size=2
)
SITES = st.builds(
    Site,
    name=st.just("site"),
    local=st.sampled_from([False, False, False, True]),
    operator=good_or("Example SA", st.just("")),
    establishment=good_or("FR", COUNTRIES),
    controllers=good_or(["FR"], LISTS),
    storage_countries=good_or(["FR"], LISTS),
    processing_countries=good_or(["FR", "DE"], LISTS),
    support_countries=good_or(["FR"], LISTS),
    cloud_act=good_or(False, st.booleans()),
    fisa_702=good_or(False, st.booleans()),
    retains_content=good_or(False, st.booleans()),
    trains_on_content=good_or(False, st.booleans()),
    certificates=good_or(["HDS v2"], CERTIFICATES),
    transfer_basis=good_or("none-needed", st.sampled_from(["scc", "adequacy:CH", "adequacy", ""])),
)
ASKS = st.builds(
    Ask,
    organisation=st.just("o"),
    project=st.just("p"),
    role=st.sampled_from(["service", "developer", "admin", "owner", "service", "auditor", "", "SERVICE"]),
    action=st.sampled_from(["chat", "complete", "embed", "ocr", "fim"]),
    model=st.text(max_size=8),
    data_class=st.sampled_from(list(DataClass)),
    categories=st.frozensets(st.sampled_from(sorted(CATEGORIES)), max_size=2),
)


def allowed(decider: Decider, ask: Ask, site: Site, now_us: int = NOW_US) -> bool:
    return decider.decide(ask, [site], now_us).verdicts[0].allowed


# --- properties ---------------------------------------------------------------------------------------


@settings(max_examples=600, deadline=None)
@given(ASKS, SITES)
def test_the_pack_decides_what_its_sentences_say(ask, site):
    verdict = DECIDER.decide(ask, [site], NOW_US).verdicts[0]
    assert verdict.allowed is may(ask, site)
    assert verdict.errors == ()
    assert verdict.rules
    assert len(verdict.reasons) == len(verdict.rules)


@settings(max_examples=300, deadline=None)
@given(ASKS, SITES, st.data())
def test_knowing_less_or_carrying_more_never_opens(ask, site, data):
    if allowed(DECIDER, ask, site):
        return
    worse_asks = [
        msgspec.structs.replace(ask, data_class=DataClass(c)) for c in range(int(ask.data_class), 4)
    ] + [msgspec.structs.replace(ask, categories=ask.categories | {c}) for c in CATEGORIES]
    assert not any(allowed(DECIDER, worse, site) for worse in worse_asks)
    fact = data.draw(st.sampled_from(FACTS))
    forgotten = msgspec.structs.replace(site, **{fact: Fact(value=None)})
    expired = msgspec.structs.replace(
        site, **{fact: msgspec.structs.replace(getattr(site, fact), expires="2020-01-01")}
    )
    assert not allowed(DECIDER, ask, forgotten)
    assert not allowed(DECIDER, ask, expired)
    later = int((TODAY + timedelta(days=data.draw(st.integers(0, 4000)))).timestamp()) * 1_000_000
    assert not allowed(DECIDER, ask, site, later)


@settings(max_examples=200, deadline=None)
@given(ASKS, SITES)
def test_a_decision_stands_until_its_valid_until_and_only_closes_then(ask, site):
    decision = DECIDER.decide(ask, [site], NOW_US)
    assert decision.valid_until_us > NOW_US
    before = DECIDER.decide(ask, [site], decision.valid_until_us - 1)
    assert before.verdicts == decision.verdicts
    after = DECIDER.decide(ask, [site], decision.valid_until_us)
    assert decision.allowed or not after.allowed


@settings(max_examples=150, deadline=None)
@given(ASKS, st.lists(SITES, min_size=1, max_size=4))
def test_sites_do_not_influence_each_other(ask, sites):
    named = [msgspec.structs.replace(s, name=f"s{i}") for i, s in enumerate(sites)]
    together = DECIDER.decide(ask, named, NOW_US)
    assert [v.site for v in together.verdicts] == [s.name for s in named]
    assert [v.allowed for v in together.verdicts] == [allowed(DECIDER, ask, s) for s in named]


def corpus(count: int) -> list[tuple[Ask, Site]]:
    """Sites one or two facts away from good, with every class: what a broken rule shows itself on."""
    rng = random.Random(20261121)
    bad = {
        "operator": None,
        "establishment": "US",
        "controllers": ["FR", "US"],
        "storage_countries": ["US"],
        "processing_countries": ["CN"],
        "support_countries": ["IN"],
        "cloud_act": True,
        "fisa_702": True,
        "retains_content": True,
        "trains_on_content": True,
        "certificates": ["ISO 27001"],
        "transfer_basis": "scc",
    }
    cases = []
    for _ in range(count):
        values = dict(GOOD)
        for fact in rng.sample(sorted(bad), rng.choice([0, 1, 1, 2])):
            adequate = [["CH"]] if fact in ("storage_countries", "processing_countries") else []
            values[fact] = rng.choice([bad[fact], None, *adequate])
        site = Site(
            name="site",
            local=rng.random() < 0.1,
            **{k: Fact(value=v, source="t", date="2026-11-21") for k, v in values.items()},
        )
        ask = Ask(
            organisation="o",
            project="p",
            role=rng.choice(["service", "service", "service", "auditor"]),
            action="chat",
            model="m",
            data_class=DataClass(rng.randrange(4)),
            categories=frozenset(rng.sample(sorted(CATEGORIES), rng.choice([0, 0, 1, 1, 2]))),
        )
        cases.append((ask, site))
    return cases


CORPUS = corpus(900)
RULES = [r.id for r in DECIDER.rules if r.effect == "forbid"]


def disagreements(decider: Decider) -> int:
    return sum(allowed(decider, ask, site) is not may(ask, site) for ask, site in CORPUS)


def test_the_corpus_agrees_with_the_pack_as_shipped():
    assert disagreements(DECIDER) == 0
    assert {may(a, s) for a, s in CORPUS} == {True, False}


@pytest.mark.parametrize("name", [r for r in RULES if r != "5.2-auditors-never"])
def test_a_rule_that_is_switched_off_is_noticed(name):
    head, tail = PACK.text.split(f'@id("{name}")')
    broken = tail.replace("unless {", "unless { true || ", 1)
    assert disagreements(Decider(f'{head}@id("{name}"){broken}', PACK.schema)) > 0


@pytest.mark.parametrize(
    ("was", "becomes"),
    [
        ("context.data_class >= 2", "context.data_class >= 3"),
        ("context.data_class >= 1", "context.data_class >= 2"),
        ('"health", "biometric"', '"biometric"'),
        ('"SE", "IS"', '"SE", "US", "IS"'),
        ('"developer", "admin", "owner"]', '"developer", "admin", "owner", "auditor"]'),
    ],
)
def test_a_rule_that_was_edited_wrongly_is_noticed(was, becomes):
    text = PACK.text.replace(was, becomes)
    assert text != PACK.text
    if "auditor" in becomes:  # the forbid still stands: two rules have to break before an auditor calls
        text = text.replace('principal.role == "auditor"', 'principal.role == "nobody"')
    assert disagreements(Decider(text, PACK.schema)) > 0


def test_no_role_reaches_a_us_controlled_site_with_confidential_data():
    """The guarantee people buy, exhaustively over roles, actions, classes and single categories."""
    us = next(s for _, s in CORPUS if not s.local and s.establishment.value == "US")
    site = msgspec.structs.replace(us, controllers=Fact(value=["US"], source="t", date="2026-11-21"))
    roles = ["owner", "admin", "auditor", "developer", "service", "root"]
    actions = ["chat", "complete", "embed", "ocr", "fim", "train"]
    for role, action, data_class, category in itertools.product(
        roles, actions, DataClass, [None, *sorted(CATEGORIES)]
    ):
        categories = frozenset({category}) if category else frozenset()
        if data_class < DataClass.CONFIDENTIAL and not categories & SENSITIVE:
            continue
        ask = Ask(
            organisation="o",
            project="p",
            role=role,
            action=action,
            model="m",
            data_class=data_class,
            categories=categories,
        )
        assert not allowed(DECIDER, ask, site)


# --- sequences ----------------------------------------------------------------------------------------


class Replica:
    """A stand-in for a socket: what `front.route.choose` needs to know, and whether it would answer."""

    def __init__(self, site: str) -> None:
        self.id = self.site = site
        self.breaker = Breaker()
        self.inflight = self.last_used = 0
        self.answers = True


class Sequences(RuleBasedStateMachine):
    """Failovers, retries, reloads, expiries and forgotten facts in any order, over the real plan and policy.

    The invariant: whatever site is contacted, the sentences allow it on that day, however it was reached.
    """

    @initialize(sites=st.lists(SITES, min_size=1, max_size=4))
    def start(self, sites):
        self.folder = Path(tempfile.mkdtemp(prefix="allod-policy-"))
        install(self.folder)
        self.sites = [msgspec.structs.replace(s, name=f"s{i}") for i, s in enumerate(sites)]
        self.replicas = [Replica(s.name) for s in self.sites]
        self.decider = DECIDER
        self.now = TODAY

    def teardown(self):
        if hasattr(self, "folder"):
            shutil.rmtree(self.folder)

    @rule(days=st.integers(0, 60))
    def time_passes(self, days):
        self.now += timedelta(days=days)

    @rule(at=st.integers(0, 3), fact=st.sampled_from(FACTS))
    def a_fact_is_forgotten(self, at, fact):
        at %= len(self.sites)
        self.sites[at] = msgspec.structs.replace(self.sites[at], **{fact: Fact(value=None)})

    @rule(at=st.integers(0, 3), answers=st.booleans())
    def a_replica_fails_or_recovers(self, at, answers):
        self.replicas[at % len(self.replicas)].answers = answers

    @rule(
        name=st.sampled_from(PACK.files), cut=st.integers(0, 3000), garbage=st.sampled_from(["", "{", "\0"])
    )
    def a_file_is_damaged_and_the_policy_reloaded(self, name, cut, garbage):
        path = self.folder / name
        whole = path.read_text()
        path.write_text(whole[:cut].rsplit(";", 1)[0] + " permit (principal" + garbage)
        self.reload()
        path.write_text(whole)
        self.reload()

    def reload(self):
        """As a node does it: the new policy is read whole before it replaces the old one."""
        with contextlib.suppress(Unprocessable):
            pack = load(self.folder)
            self.decider = Decider(pack.text, pack.schema)

    @rule(ask=ASKS, retries=st.integers(1, 4))
    def a_request_fails_over_until_it_is_answered(self, ask, retries):
        now_us = int(self.now.timestamp()) * 1_000_000
        decision = self.decider.decide(ask, self.sites, now_us)
        plan = Plan(ask, ServiceEntry(model="m", kind="chat", replicas=()), decision, self.replicas)
        day = self.now.date().isoformat()
        open_to = {s.name for s in self.sites if may(ask, s, day)}
        for attempt in range(retries):
            tried: set[str] = set()
            while (replica := choose(plan.candidates, tried, float(attempt))) is not None:
                assert replica.site in open_to
                tried.add(replica.id)
                if replica.answers:
                    break


Sequences.TestCase.settings = settings(max_examples=60, stateful_step_count=20, deadline=None)
TestSequences = Sequences.TestCase
