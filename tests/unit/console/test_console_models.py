"""A model's page over real HTTP, and the picture of its lineage."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from urllib.parse import quote

import httpx
import msgspec
import pytest
from console_node import HOSTILE
from console_papers import papers
from console_process import console_process

from allod.api.ports import ModelPapersView
from allod.console import i18n, lineage
from allod.console.models import TRAINING as SHOWN
from allod.models.card import TRAINING

EN = i18n.load()["en"]


@pytest.fixture(scope="module")
def console() -> Iterator[str]:
    with console_process() as address:
        yield address


@contextmanager
def signed_in(base: str, key: str = "allod_dev_1") -> Iterator[httpx.Client]:
    with httpx.Client(base_url=base, trust_env=False) as client:
        token = re.search(r'name="token" value="([^"]+)"', client.get("login").text)
        assert token is not None
        assert client.post("login", data={"token": token[1], "key": key}).status_code == 303
        yield client


def test_the_node_page_leads_to_the_papers_of_each_model_it_serves(console: str) -> None:
    with signed_in(console) as client:
        home = client.get("").text
        assert 'href="/console/models/ministral-3b"' in home
        assert "models/reader" not in home  # nothing with weights stands behind it
        page = client.get("models/ministral-3b")
        assert page.status_code == 200
        for text in ("Signed by organisation", "Apache-2.0", "France", "fine-tuned on letters", "ward@3",
                     "Never name a dose.", "set-4", "5 parts", "Removal of illegal content"):  # fmt: skip
            assert text in page.text, text
    with httpx.Client(base_url=console, trust_env=False) as visitor:
        assert visitor.get("models/ministral-3b").status_code == 303


@pytest.mark.parametrize(
    ("language", "refused"),
    [("en", "Not served"), ("fr", "Non servi"), ("de", "Nicht bedient")],
)
def test_a_model_without_papers_is_said_to_be_one_in_every_language(
    console: str, language: str, refused: str
) -> None:
    with signed_in(console) as client:
        page = client.get("models/house-test", params={"lang": language}).text
        assert f'<html lang="{language}">' in page
        assert refused in page
        assert "model.unsigned" in page
        assert page.count('class="unknown"') > len(SHOWN)
        assert "%(" not in page


def test_what_a_maker_wrote_stays_text(console: str) -> None:
    with signed_in(console) as client:
        page = client.get(f"models/{quote(HOSTILE[:64], safe='')}")
        assert page.status_code == 200
        assert "<script>window" not in page.text
        assert "<img src=x" not in page.text
        missing = client.get("models/nobody")
        assert missing.status_code == 404
        assert "allod models ls" in missing.text


def test_the_picture_draws_only_what_the_papers_prove() -> None:
    view = papers("ministral-3b", HOSTILE)
    signed = lineage.draw(view, EN)
    assert [i.proven for i in lineage.inputs(view.lineage.materials, EN)] == [True, False]
    assert [line.kind for line in signed.lines].count("open") == 1  # the data that only has names
    assert signed.bars == ()
    assert signed.summary.startswith("1 of 6")

    refused = lineage.draw(papers("house-test", HOSTILE), EN)
    assert {line.kind for line in refused.lines} == {"open", "refused"}
    assert len(refused.bars) == 1
    assert "not served" in refused.summary


def test_every_card_lies_inside_the_picture() -> None:
    for view in (papers("ministral-3b", HOSTILE), papers("house-test", HOSTILE), _crowded()):
        picture = lineage.draw(view, EN)
        for card in picture.cards:
            assert 0 <= card.x <= picture.width - lineage.CARD_WIDTH
            assert 0 <= card.y <= picture.height - lineage.CARD_HEIGHT
            assert len(card.label) <= lineage.NAME_CHARS
        tops = sorted((c.x, c.y) for c in picture.cards)
        for (x, y), (other_x, other_y) in pairwise(tops):
            assert x != other_x or other_y - y >= lineage.CARD_HEIGHT


def _crowded() -> ModelPapersView:
    view = papers("ministral-3b", HOSTILE)
    return msgspec.structs.replace(view, told=view.told * 7)


def test_the_page_and_the_card_name_the_same_sections() -> None:
    assert SHOWN == TRAINING
