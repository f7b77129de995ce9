"""An explanation says what the decision says, and shows the facts that made it."""

from __future__ import annotations

from allod.policy.decide import Decider
from allod.policy.decision import Ask, DataClass
from allod.policy.explain import explain
from allod.policy.pack import bundled
from allod.sites.facts import Fact
from allod.sites.reading import site

PACK = bundled()
DECIDER = Decider(PACK.text, PACK.schema)
NOW_US = 1_795_255_200_000_000  # 2026-11-21T10:00:00Z
ASK = Ask(
    organisation="o", project="p", role="developer", action="chat", model="m", data_class=DataClass.INTERNAL
)


def fact(value, **more) -> Fact:
    return Fact(value=value, source="contract 7", date="2026-11-01", kind="contract", **more)


REMOTE = site(
    "remote",
    local=False,
    facts={
        "trains_on_content": fact(False),
        "storage_countries": fact(["FR"]),
        "processing_countries": fact(["FR", "US"]),
        "transfer_basis": fact("none-needed", expires="2026-11-20"),
    },
)
LOCAL = site("local", local=True, facts={})


def test_a_refusal_shows_exactly_the_facts_its_rules_looked_at():
    found = explain(DECIDER, ASK, [LOCAL, REMOTE], NOW_US)
    assert found.allowed
    local, remote = found.sites
    assert local.allowed
    assert local.facts == ()
    assert [r.id for r in remote.rules] == ["1.2-eea-or-adequate", "1.3-transfer-basis"]
    assert remote.rules[0].law == "GDPR Art. 44, 45"
    by_name = {f.name: f for f in remote.facts}
    assert set(by_name) == {"storage_countries", "processing_countries", "transfer_basis"}
    assert by_name["processing_countries"].value == "FR, US"
    assert by_name["processing_countries"].source == "contract 7"
    basis = by_name["transfer_basis"]
    assert (basis.value, basis.known, basis.expired) == ("unknown", False, True)


def test_it_agrees_with_the_decision_and_carries_its_digest():
    decision = DECIDER.decide(ASK, [LOCAL, REMOTE], NOW_US)
    found = explain(DECIDER, ASK, [LOCAL, REMOTE], NOW_US)
    assert [s.allowed for s in found.sites] == [v.allowed for v in decision.verdicts]
    assert (found.policy, found.valid_until_us) == (decision.policy, decision.valid_until_us)


def test_the_reader_chooses_the_language_and_is_told_which_it_is():
    unknown = site("x", local=False, facts={})
    rule = explain(DECIDER, ASK, [unknown], NOW_US, "fr").sites[0].rules[0]
    assert "entraîne" in rule.reason
    assert rule.language == "fr"
    untranslated = Decider(
        '@id("no") @reason("Not there.") forbid (principal, action, resource);', PACK.schema
    )
    rule = explain(untranslated, ASK, [unknown], NOW_US, "fr").sites[0].rules[0]
    assert (rule.reason, rule.language) == ("Not there.", "en")


def test_a_default_deny_is_explained_too():
    nobody = Ask(
        organisation="o", project="p", role="guest", action="chat", model="m", data_class=DataClass.PUBLIC
    )
    found = explain(DECIDER, nobody, [REMOTE], NOW_US).sites[0]
    assert not found.allowed
    assert found.rules[0].effect == "default-deny"
    assert "5.1-callers" in found.rules[0].reason
