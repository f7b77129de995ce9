"""Deciding: only a clean Allow is an allow."""

from __future__ import annotations

from pathlib import Path

import cedarpy
import msgspec
import pytest
from policy_sites import GOOD, good_site

from allod.policy import attributes, decide
from allod.policy.decide import Decider
from allod.policy.decision import Ask, DataClass
from allod.policy.pack import bundled
from allod.sites.facts import Fact
from allod.sites.reading import SITE_FACTS, site

PACK = bundled()
DAY_US = 86_400_000_000
NOW_US = 1_795_255_200_000_000  # 2026-11-21T10:00:00Z


def ask(**changes) -> Ask:
    base = Ask(
        organisation="o",
        project="p",
        role="service",
        action="chat",
        model="m",
        data_class=DataClass.CONFIDENTIAL,
    )
    return msgspec.structs.replace(base, **changes)


@pytest.fixture(scope="module")
def decider() -> Decider:
    return Decider(PACK.text, PACK.schema)


def test_without_a_schema_cedar_would_answer_allow_where_a_forbid_cannot_be_evaluated():
    """Why the schema is always passed: the same question, the same rules, and the opposite answer."""
    rules = """
        permit (principal, action, resource);
        forbid (principal, action, resource) when { resource.cloud_act };
    """
    request = {
        "principal": {"type": "Caller", "id": "c"},
        "action": {"type": "Action", "id": "chat"},
        "resource": {"type": "Site", "id": "us-site"},
        "context": {},
    }
    forgetful = [{"uid": {"type": "Site", "id": "us-site"}, "attrs": {}, "parents": []}]
    open_answer = cedarpy.is_authorized(request, rules, forgetful)
    assert open_answer.decision is cedarpy.Decision.Allow
    assert open_answer.diagnostics.errors
    closed = cedarpy.is_authorized(request, rules, forgetful, schema=PACK.schema)
    assert closed.decision is not cedarpy.Decision.Allow


def test_an_allow_with_errors_is_a_denial(decider, monkeypatch):
    """Even with a schema: a site whose entity is missing makes Cedar skip every forbid and answer Allow."""

    def without_sites(ask, sites, now_us):
        requests, entities = original(ask, sites, now_us)
        return requests, entities[:1]

    original = decide._question
    monkeypatch.setattr(decide, "_question", without_sites)
    verdict = decider.decide(ask(), [good_site()], NOW_US).verdicts[0]
    assert not verdict.allowed
    assert verdict.rules == ("default-deny",)
    assert "does not exist" in verdict.errors[0]


@pytest.mark.parametrize("failure", [RuntimeError("boom"), ValueError("x"), MemoryError()])
def test_an_exception_in_the_engine_denies_every_site(decider, monkeypatch, failure):
    def fails(*args, **kwargs):
        raise failure

    monkeypatch.setattr(cedarpy, "is_authorized_batch", fails)
    decision = decider.decide(ask(), [good_site("a"), good_site("b")], NOW_US)
    assert not decision.allowed
    assert [v.site for v in decision.verdicts] == ["a", "b"]
    assert all(v.errors for v in decision.verdicts)


def test_fewer_answers_than_questions_deny_every_site(decider, monkeypatch):
    original = cedarpy.is_authorized_batch
    monkeypatch.setattr(cedarpy, "is_authorized_batch", lambda *a, **k: original(*a, **k)[:-1])
    assert not decider.decide(ask(), [good_site("a"), good_site("b")], NOW_US).allowed


def test_one_name_with_two_sets_of_facts_is_denied_both_times(decider):
    bad = good_site(cloud_act=Fact(value=True, source="t", date="2026-11-21"))
    decision = decider.decide(ask(), [good_site(), bad], NOW_US)
    assert not decision.allowed


def test_a_good_site_is_allowed_and_the_permit_is_named(decider):
    verdict = decider.decide(ask(), [good_site()], NOW_US).verdicts[0]
    assert verdict.allowed
    assert verdict.rules == ("5.1-callers",)


def test_every_sentence_that_is_broken_is_named_in_the_order_of_the_text(decider):
    unknown = site("unknown", local=False, facts={})
    verdict = decider.decide(
        ask(data_class=DataClass.RESTRICTED, categories=frozenset({"health", "financial"})), [unknown], NOW_US
    ).verdicts[0]
    assert verdict.rules == tuple(r.id for r in decider.rules if r.effect == "forbid" and r.id[:3] != "5.2")
    assert verdict.reasons[0] == decider.reason("1.1-no-training")


def test_restricted_data_stays_here_and_needs_no_declared_fact(decider):
    here = site("local", local=True, facts={})
    decision = decider.decide(ask(data_class=DataClass.RESTRICTED), [here, good_site()], NOW_US)
    assert decision.allowed_sites == ("local",)
    assert decision.verdicts[1].rules == ("3.1-own-machines",)


def test_a_default_deny_says_which_permit_was_missing(decider):
    verdict = decider.decide(ask(role="guest"), [good_site()], NOW_US).verdicts[0]
    assert verdict.rules == ("default-deny",)
    assert "guest" in verdict.reasons[0]
    assert "5.1-callers" in verdict.reasons[0]


def test_no_sites_is_no_allow(decider):
    assert not decider.decide(ask(), [], NOW_US).allowed


@pytest.mark.parametrize("fact", [f for f in GOOD if f not in ("operator", "certificates")])
def test_an_expired_fact_closes_the_site_at_midnight_after_its_day(decider, fact):
    expiring = good_site(
        **{fact: Fact(value=GOOD[fact], source="t", date="2026-11-01", expires="2026-11-21")}
    )
    decision = decider.decide(ask(), [expiring], NOW_US)
    assert decision.allowed
    midnight = (NOW_US // DAY_US + 1) * DAY_US
    assert decision.valid_until_us == midnight
    assert decider.decide(ask(), [expiring], midnight - 1).allowed
    assert not decider.decide(ask(), [expiring], midnight).allowed


def test_a_health_certificate_runs_out(decider):
    expiring = good_site(
        certificates=Fact(value=["HDS v2"], source="t", date="2026-01-01", expires="2026-11-20")
    )
    health = ask(categories=frozenset({"health"}))
    assert decider.decide(health, [expiring], NOW_US - 2 * DAY_US).allowed
    assert decider.decide(health, [expiring], NOW_US).verdicts[0].rules == ("4.1-health-certified",)


@pytest.mark.parametrize("expires", ["soon", "2026-13-01", "9999-12-31", " 2030-01-01"])
def test_an_expiry_that_cannot_be_read_has_passed(expires):
    fact = Fact(value="FR", source="t", date="2026-11-21", expires=expires)
    assert attributes.known_value(fact, NOW_US) is None


@pytest.mark.parametrize("value", [0, "", "false", "no", [], 1, "unknown"])
def test_only_false_is_false(value):
    site_ = good_site(cloud_act=Fact(value=value, source="t", date="2026-11-21"))
    assert attributes.entity(site_, NOW_US)["attrs"]["cloud_act"] is True


@pytest.mark.parametrize("value", [[], "", [""], {"FR": 1}, 3, [None], [1]])
def test_a_list_that_says_nothing_is_unknown(value):
    site_ = good_site(controllers=Fact(value=value, source="t", date="2026-11-21"))
    assert attributes.entity(site_, NOW_US)["attrs"]["controllers"] == ["unknown"]


@pytest.mark.parametrize(
    ("certificate", "scheme"),
    [
        ("HDS", "HDS"),
        ("HDS v2", "HDS"),
        ("SecNumCloud 3.2", "SecNumCloud"),
        ("C5:2026 type 2", "C5 type 2"),
        ("ISO/IEC 27001:2022", "ISO 27001"),
    ],
)
def test_a_certificate_names_its_scheme(certificate, scheme):
    assert attributes.schemes([certificate]) == [scheme]


@pytest.mark.parametrize(
    "certificate",
    [
        "HDS planned",
        "not HDS",
        "SecNumCloud (in progress)",
        "SecNumCloud candidate",
        "HDS v2 expired",
        "C5",
        "",
    ],
)
def test_what_is_no_certificate_names_none(certificate):
    assert attributes.schemes([certificate]) == []


def test_the_mapping_covers_every_fact_and_every_attribute_of_the_schema():
    assert set(attributes.FACTS) == set(SITE_FACTS)
    attrs = attributes.entity(good_site(), NOW_US)["attrs"]
    body = PACK.schema.split("entity Site {")[1].split("};")[0]
    declared = {line.split(":")[0].strip() for line in body.splitlines() if ":" in line.split("//")[0]}
    assert declared == set(attrs)


def test_the_digest_is_of_text_and_schema(decider):
    assert decider.digest == Decider(PACK.text, PACK.schema).digest
    assert decider.digest != Decider(PACK.text + "\n", PACK.schema).digest
    assert decider.digest != Decider(PACK.text, PACK.schema + "\n").digest


def test_every_bundled_rule_speaks_three_languages_and_names_its_law(decider):
    for rule in decider.rules:
        sentences = {decider.reason(rule.id, lang) for lang in ("en", "fr", "de")}
        assert len(sentences) == 3, rule.id
        assert decider.law(rule.id) or rule.id == "5.1-callers"
    assert decider.reason("5.1-callers", "pl") == decider.reason("5.1-callers", "en")


def test_the_documented_mapping_is_the_one_in_use():
    text = (Path(__file__).parents[3] / "docs" / "policy.md").read_text(encoding="utf-8")
    for attribute in attributes.TABLE:
        sources = ", ".join(f"`{fact}`" for fact in attribute.facts)
        (row,) = (
            line for line in text.splitlines() if line.startswith(f"| `{attribute.name}` | {sources} |")
        )
        assert attribute.worst in row
