"""The picture says what the statement says: every refusal is a barrier, nothing unreached looks reached."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from itertools import product

import msgspec

from allod.console import i18n, picture, words
from allod.ledger.statement import Attempt, Refusal, Statement, Usage
from allod.policy.decision import Ask, DataClass
from allod.policy.explain import Explanation, RuleLine, SiteExplanation

EN = i18n.load()["en"]
BASE = Statement(
    action="chat",
    actor="aa",
    data_class="confidential",
    decision="allow",
    ended_us=1_412_000,
    endpoint="/v1/chat/completions",
    engine="llama.cpp",
    id="r-1",
    input="bb",
    input_bytes=10,
    key_check="cc",
    model="small",
    origin="o",
    outcome="answered",
    output="dd",
    output_bytes=5,
    organisation="hospital",
    policy="sha256:p",
    project="ward",
    rules=("inside",),
    site="here",
    started_us=1_000_000,
    status=200,
    attempts=(Attempt(outcome="answered", replica="small-0", site="here"),),
)
DENIED = msgspec.structs.replace(
    BASE,
    decision="deny",
    outcome="refused",
    status=403,
    site="",
    attempts=(),
    rules=("home",),
    engine="",
    refused=(Refusal(rules=("home",), site="far"), Refusal(rules=("home", "law"), site="away")),
)


def states(p: picture.Picture) -> dict[str, str]:
    return {s.key: s.state for s in p.stages}


def test_an_answer_runs_through_every_station() -> None:
    p = picture.draw(BASE, 7, None, EN)
    assert set(states(p).values()) == {"done"}
    assert [(b.site, b.state) for b in p.branches] == [("here", "used")]
    assert p.drawing.bars == ()
    assert p.summary == "Answered by small at site here in 412 ms."


def test_a_refusal_stops_at_the_rules_and_still_has_its_receipt() -> None:
    p = picture.draw(DENIED, 7, None, EN)
    assert (states(p)["may"], states(p)["replica"], states(p)["receipt"]) == ("stopped", "skipped", "done")
    assert {b.site: b.state for b in p.branches} == {"far": "refused", "away": "refused"}
    assert len(p.drawing.bars) == 2  # one barrier for each refused site
    assert all(line.kind != "taken" or "866" not in line.d for line in p.drawing.lines)
    assert "may go to none" in p.summary


def test_a_failover_shows_who_was_tried_before() -> None:
    attempts = (Attempt(outcome="reset", replica="far-0", site="far"), *BASE.attempts)
    p = picture.draw(msgspec.structs.replace(BASE, attempts=attempts), None, None, EN)
    assert [(b.site, b.state) for b in p.branches] == [("here", "used"), ("far", "tried")]
    assert states(p)["ledger"] == "waiting"


def test_reasons_come_only_from_the_policy_that_decided() -> None:
    inside = RuleLine(id="inside", effect="permit", reason="it stays inside")
    home = RuleLine(id="home", effect="forbid", reason="it must stay home", law="Art. 9")
    ask = Ask(
        organisation="o", project="p", role="owner", action="chat", model="m", data_class=DataClass.PUBLIC
    )
    now = Explanation(
        ask=ask,
        policy="sha256:p",
        valid_until_us=0,
        sites=tuple(
            SiteExplanation(site=name, local=False, allowed=rule is inside, rules=(rule,), facts=())
            for name, rule in (("here", inside), ("spare", inside), ("far", home))
        ),
    )
    refused = msgspec.structs.replace(BASE, refused=(Refusal(rules=("home",), site="far"),))
    p = picture.draw(refused, 1, now, EN)
    assert [(b.site, b.state, b.reasons) for b in p.branches] == [
        ("here", "used", (inside,)),
        ("spare", "allowed", (inside,)),
        ("far", "refused", (home,)),
    ]
    later = picture.draw(refused, 1, msgspec.structs.replace(now, policy="sha256:other"), EN)
    assert [(b.site, b.reasons) for b in later.branches] == [("here", ()), ("far", ())]
    assert all(b.state != "allowed" for b in picture.draw(DENIED, 1, now, EN).branches)


def test_more_sites_than_fit_are_counted_not_hidden() -> None:
    many = tuple(Refusal(rules=("home",), site=f"far-{n}") for n in range(40))
    p = picture.draw(msgspec.structs.replace(DENIED, refused=many), 1, None, EN)
    assert (len(p.drawing.cards), p.drawing.more, len(p.branches)) == (6, 34, 40)


def test_no_outcome_and_no_language_breaks_the_drawing_or_the_words() -> None:
    outcomes = ("answered", "refused", "failed", "cancelled", "interrupted")
    for outcome, c, base in product(outcomes, i18n.load().values(), (BASE, DENIED)):
        s = msgspec.structs.replace(base, outcome=outcome)
        p = picture.draw(s, None, None, c)
        assert all(stage.title and stage.value and stage.detail for stage in p.stages)
        for line in p.drawing.lines:
            ET.fromstring(f'<path d="{line.d}"/>')
        assert all(0 <= dot.y <= p.drawing.height for dot in p.drawing.dots)
        assert all(f.label and f.meaning for g in words.explain(s, c) for f in g.fields)


def test_every_field_of_the_statement_is_put_into_words() -> None:
    """A field added to the statement has to be explained here, or this fails."""
    marks = {f.name: f"mark-{n}" for n, f in enumerate(msgspec.structs.fields(Statement)) if f.type is str}
    s = msgspec.structs.replace(BASE, **marks, usage=Usage(source="none"))
    shown = " ".join(f.value for g in words.explain(s, EN) for f in g.fields)
    assert [name for name, mark in marks.items() if mark not in shown] == []
