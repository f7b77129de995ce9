"""The bundled catalogue: every fact has a source and a date, and the document shows what the files say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from allod.policy.decide import Decider
from allod.policy.decision import Ask, DataClass
from allod.policy.pack import bundled
from allod.sites import catalogue
from allod.sites.load import load_sites
from allod.sites.reading import site
from allod.sites.table import rewrite

DOCUMENT = Path(__file__).parents[3] / "docs" / "sites.md"
NOW_US = 1_795_255_200_000_000  # 2026-11-21T10:00:00Z
US = ("anthropic", "aws-bedrock-eu", "azure-openai-eu", "google-vertex-eu", "groq", "openai", "together")
# where a provider itself says that it is not within reach; nothing else counts as a source for a no
SAYS_NO_CLOUD_ACT = {"scaleway"}


@pytest.mark.parametrize("name", catalogue.names())
def test_every_known_fact_names_its_source_and_its_day(name):
    entry = catalogue.entry(name)
    assert entry.title
    assert entry.facts
    for fact in entry.facts.values():
        assert fact.source
        assert fact.date
    assert not entry.base_url or entry.base_url.startswith("https://")


@pytest.mark.parametrize("name", catalogue.names())
def test_reach_of_us_law_is_stated_with_the_statute_or_not_at_all(name):
    facts = catalogue.entry(name).facts
    for fact, statute in (("cloud_act", "18 U.S.C. § 2713"), ("fisa_702", "50 U.S.C. § 1881(b)(4)")):
        if fact in facts and facts[fact].value is True:
            assert statute in facts[fact].source
            assert facts[fact].kind == "public-record"
        if fact in facts and facts[fact].value is False:
            assert name in SAYS_NO_CLOUD_ACT
            assert facts[fact].kind == "declared"


@pytest.mark.parametrize("name", US)
def test_a_us_company_is_within_reach(name):
    facts = catalogue.entry(name).facts
    assert facts["cloud_act"].value is True
    assert facts["fisa_702"].value is True


@pytest.mark.parametrize("name", catalogue.names())
def test_no_entry_opens_confidential_data_by_itself(name):
    pack = bundled()
    ask = Ask(
        organisation="o",
        project="p",
        role="owner",
        action="chat",
        model="m",
        data_class=DataClass.CONFIDENTIAL,
    )
    remote = site(name, local=False, facts=catalogue.entry(name).facts)
    assert not Decider(pack.text, pack.schema).decide(ask, [remote], NOW_US).allowed


def test_the_document_is_what_the_files_say():
    text = DOCUMENT.read_text(encoding="utf-8")
    assert rewrite(text) == text, "run: python -m allod.sites.table docs/sites.md"


def test_the_site_file_shown_in_the_document_opens_confidential_data(tmp_path):
    """The facts that a contract adds are the ones the bundled policy asks for: the example is complete."""
    text = DOCUMENT.read_text(encoding="utf-8")
    example = next(part for part in re.findall(r"```toml\n(.*?)```", text, re.DOTALL) if "catalogue" in part)
    (tmp_path / "scaleway.toml").write_text(example, encoding="utf-8")
    (found,) = load_sites(tmp_path)
    pack = bundled()
    ask = Ask(
        organisation="o",
        project="p",
        role="service",
        action="chat",
        model="m",
        data_class=DataClass.CONFIDENTIAL,
    )
    verdict = Decider(pack.text, pack.schema).decide(ask, [found.site], NOW_US).verdicts[0]
    assert verdict.allowed, verdict.rules
