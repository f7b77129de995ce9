"""What each service of a shared provider is asked for and told, through a real front and a real socket."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from front_home import Answer, Home, answers, request, talk

TOLD = "sha256:" + "5" * 64
PROMPT = 'Answer in one word. "model": "other" \u2028'


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    home = Home(tmp_path_factory.mktemp("told"))
    # Both models of one provider are behind the same process, so their replicas have the same id.
    home.service("first", home.replica("far1", site_name="far", upstream_model="first"))
    home.service("second", home.replica("far1", site_name="far", upstream_model="second"))
    home.services["second"] = msgspec.structs.replace(
        home.services["second"], system_prompt=PROMPT, instructions={"far1": TOLD}
    )
    home.spawn("far1")
    home.start()
    yield home
    home.stop()


def ask(home: Home, model: str, **more: Any) -> Answer:
    body = {"model": model, "messages": [{"role": "user", "content": "hello"}], **more}
    (answer,) = answers(talk(home.port, request(body)))
    return answer


def test_each_model_of_a_provider_is_asked_for_by_its_own_name(home: Home) -> None:
    for model in ("first", "second", "first"):
        assert ask(home, model).status == 200
        assert json.loads(home.seen("far1")[-1]["body"])["model"] == model


@pytest.mark.parametrize("stream", [False, True])
def test_only_the_service_with_instructions_is_told_them_and_its_receipt_says_so(
    home: Home, stream: bool
) -> None:
    answer = ask(home, "second", stream=stream)
    told = json.loads(home.seen("far1")[-1]["body"])["messages"]
    assert told == [{"role": "system", "content": PROMPT}, {"role": "user", "content": "hello"}]
    assert home.receipts()[answer.headers["allod-receipt"]].instructions == TOLD

    answer = ask(home, "first", stream=stream)
    assert json.loads(home.seen("far1")[-1]["body"])["messages"] == [{"role": "user", "content": "hello"}]
    assert home.receipts()[answer.headers["allod-receipt"]].instructions == ""


def test_a_request_that_cannot_carry_instructions_reaches_no_engine(home: Home) -> None:
    before = len(home.seen("far1"))
    (answer,) = answers(
        talk(home.port, request({"model": "second", "prompt": "hello"}, path="/v1/completions"))
    )
    assert (answer.status, json.loads(answer.body)["error"]["code"]) == (400, "instructions.no-messages")
    assert len(home.seen("far1")) == before
    assert home.receipts()[answer.headers["allod-receipt"]].outcome == "failed"
