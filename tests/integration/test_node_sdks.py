"""A whole node from the outside: unmodified SDKs, the real front over TCP, real engines in their sandboxes.

Every answer that a client saw is compared with its receipt, and at the end the ledger holds those and no
others.
"""

from __future__ import annotations

import json
import math
import sqlite3
import ssl
import time
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest
from mistralai.client import Mistral
from mistralai.client.errors import HTTPValidationError, SDKError
from pages import data_url, text_pdf
from running_node import RunningNode, running_node
from served_home import CHAT, EMBED, GPU, OCR, served_home

HELLO: list[Any] = [{"role": "user", "content": "Hello"}]
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
NAMED: Any = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 8}},
    "required": ["name"],
    "additionalProperties": False,
}
FORM: Any = {"type": "json_schema", "json_schema": {"name": "person", "schema": NAMED, "strict": True}}


class Outside:
    """What a client has: an address, a key, the SDKs; and the receipts of everything that it was answered."""

    def __init__(self, node: RunningNode) -> None:
        self.node = node
        self.receipts: list[str] = []
        self.key = node.key()
        noting: Any = {"timeout": 60, "trust_env": False, "event_hooks": {"response": [self._note]}}
        self.openai = openai.OpenAI(
            api_key=self.key,
            base_url=f"{node.url}/v1",
            max_retries=0,
            http_client=openai.DefaultHttpxClient(**noting),
        )
        self.mistral = Mistral(api_key=self.key, server_url=node.url, client=httpx.Client(**noting))

    def _note(self, answer: Any) -> None:
        if "allod-receipt" in answer.headers:
            self.receipts.append(answer.headers["allod-receipt"])

    def with_key(self, key: str) -> openai.OpenAI:
        return self.openai.with_options(api_key=key)

    def last(self, **expected: Any) -> dict[str, Any]:
        """What the receipt of the last answer states: the `expected`, and what every local answer has."""
        with self.node.client(self.key) as client:
            told = client.get(f"/v1/receipts/{self.receipts[-1]}")
        assert told.status_code == 200, told.text
        statement: dict[str, Any] = told.json()["statement"]
        assert (statement["outcome"], statement["decision"], statement["status"]) == (
            expected.pop("outcome", "answered"), "allow", 200,
        )  # fmt: skip
        assert statement["site"] == "local"
        assert [a["site"] for a in statement["attempts"]] == ["local"]
        assert statement["rules"] == ["5.1-callers"]
        for name in ("model_digest", "engine_digest", "policy", "site_facts"):
            assert statement[name].startswith("sha256:"), name
        assert statement["engine"]
        assert statement["energy"]["microjoules"] > 0
        assert "Hello" not in json.dumps(statement)
        for name, value in expected.items():
            assert statement[name] == value, name
        return statement

    def idle(self, model: str) -> None:
        """Waits until the engine itself says that it works on nothing."""
        socket = self.node.home / "run" / "replicas" / f"{model}-0" / "http.sock"
        until = time.monotonic() + 2
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(socket)), base_url="http://r") as replica:
            while " 0.0" not in replica.get("/metrics").text:
                assert time.monotonic() < until, "the engine went on for a client that had left"

    def used(self, usage: Any) -> dict[str, Any]:
        """The receipt's form of what an SDK reports."""
        said = getattr(usage, "completion_tokens", 0) or 0
        return {"input_tokens": usage.prompt_tokens, "output_tokens": said, "pages": 0, "source": "engine"}


@pytest.fixture(scope="module")
def outside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outside]:
    home = served_home(
        tmp_path_factory.mktemp("sdk"),
        (OCR, CHAT, EMBED, GPU),
        site="declared = 2026-11-21\nactive_watts = 65",
    )
    with running_node(home, "--workers", "2") as node:
        node.wait_ready()
        yield Outside(node)


# --- OpenAI -------------------------------------------------------------------------------------------------


def test_openai_chat(outside: Outside) -> None:
    ask: dict[str, Any] = {"model": CHAT, "messages": HELLO, "seed": 7, "temperature": 0, "max_tokens": 24}
    answer = outside.openai.chat.completions.create(**ask)
    assert answer.choices[0].message.content
    assert answer.choices[0].finish_reason == "stop"
    statement = outside.last(
        action="chat",
        endpoint="/v1/chat/completions",
        model=CHAT,
        data_class="internal",
        usage=outside.used(answer.usage),
        sampling={"max_tokens": "24", "seed": "7", "temperature": "0"},
        quantisation="q8_0",
    )
    again = outside.openai.chat.completions.create(**ask)
    assert again.choices[0].message.content == answer.choices[0].message.content
    assert outside.last()["input"] != statement["input"], "the same words, another record: no linking"


@pytest.mark.parametrize("model", [CHAT, GPU])
@pytest.mark.parametrize("asked", [True, False])
def test_openai_stream_reports_usage_only_where_asked(outside: Outside, model: str, asked: bool) -> None:
    more: dict[str, Any] = {"stream_options": {"include_usage": True}} if asked else {}
    chunks = list(
        outside.openai.chat.completions.create(
            model=model, messages=HELLO, stream=True, temperature=0, max_tokens=24, **more
        )
    )
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert [c for c in chunks if c.choices][-1].choices[0].finish_reason == "stop"
    reported = [c.usage for c in chunks if c.usage]
    assert len(reported) == asked
    assert all(c.choices for c in chunks[:-1])
    statement = outside.last(action="chat", model=model)
    assert statement["usage"]["source"] == "engine"
    assert statement["usage"]["output_tokens"] > 0
    if asked:
        assert statement["usage"] == outside.used(reported[0])


@pytest.mark.parametrize("streamed", [False, True])
def test_openai_tools_round_trip(outside: Outside, streamed: bool) -> None:
    question: list[Any] = [{"role": "user", "content": "What is the weather in Paris?"}]
    ask: dict[str, Any] = {"model": CHAT, "tools": [WEATHER], "temperature": 0, "max_tokens": 80}
    if streamed:
        with outside.openai.chat.completions.stream(messages=question, **ask) as stream:
            choice = stream.get_final_completion().choices[0]
    else:
        choice = outside.openai.chat.completions.create(messages=question, **ask).choices[0]
    assert choice.finish_reason == "tool_calls"
    assert choice.message.tool_calls
    call = choice.message.tool_calls[0]
    assert call.type == "function"
    assert call.function.name == "get_weather"
    assert "Paris" in json.loads(call.function.arguments)["city"]
    history = [
        *question,
        {
            "role": "assistant",
            "tool_calls": [
                {
                    "id": call.id,
                    "type": "function",
                    "function": {"name": call.function.name, "arguments": call.function.arguments},
                }
            ],
        },
        {"role": "tool", "tool_call_id": call.id, "content": "sunny, 21 degrees"},
    ]
    answer = outside.openai.chat.completions.create(messages=history, **ask)
    assert "21" in (answer.choices[0].message.content or "")
    outside.last(action="chat", usage=outside.used(answer.usage))


def test_openai_structured_output(outside: Outside) -> None:
    answer = outside.openai.chat.completions.create(
        model=CHAT, messages=HELLO, max_tokens=80, response_format=FORM
    )
    assert set(json.loads(answer.choices[0].message.content or "")) == {"name"}
    outside.last(usage=outside.used(answer.usage))


def test_openai_completions(outside: Outside) -> None:
    answer = outside.openai.completions.create(model=CHAT, prompt="Hello", max_tokens=8, seed=11)
    assert answer.choices[0].text
    outside.last(
        action="complete",
        endpoint="/v1/completions",
        usage=outside.used(answer.usage),
        sampling={"max_tokens": "8", "seed": "11"},
    )


def test_openai_embeddings(outside: Outside) -> None:
    texts = ["bread and water", "a receipt for every answer"]
    packed = outside.openai.embeddings.create(model=EMBED, input=texts)  # the SDK asks for base64 by itself
    outside.last(action="embed", endpoint="/v1/embeddings", usage=outside.used(packed.usage))
    plain = outside.openai.embeddings.create(model=EMBED, input=texts, encoding_format="float")
    short = outside.openai.embeddings.create(model=EMBED, input=texts, dimensions=64)
    for one, other, cut in zip(packed.data, plain.data, short.data, strict=True):
        assert len(one.embedding) == 384
        assert one.embedding == pytest.approx(other.embedding, abs=1e-6)
        assert len(cut.embedding) == 64
        assert math.hypot(*cut.embedding) == pytest.approx(1, abs=1e-5)


def test_vllm_in_an_environment_of_its_own(outside: Outside) -> None:
    answer = outside.openai.chat.completions.create(model=GPU, messages=HELLO, tools=[WEATHER])
    assert answer.choices[0].message.tool_calls
    outside.last(engine="vllm 0.0.1", usage=outside.used(answer.usage))


def test_the_class_that_a_request_names_is_the_class_of_its_receipt(outside: Outside) -> None:
    carried = {"allod-data-class": "restricted", "allod-data-categories": "health, personal"}
    outside.openai.chat.completions.create(model=CHAT, messages=HELLO, extra_headers=carried)
    outside.last(data_class="restricted", categories=["health", "personal"])
    before = len(outside.receipts)
    with pytest.raises(openai.BadRequestError, match="no data class 'secret'") as refused:
        outside.openai.chat.completions.create(
            model=CHAT, messages=HELLO, extra_headers={"allod-data-class": "secret"}
        )
    assert refused.value.code == "class.unknown"
    assert len(outside.receipts) == before


def test_openai_models(outside: Outside) -> None:
    cards = {m.id: m for m in outside.openai.models.list()}
    assert set(cards) == {OCR, CHAT, EMBED, GPU}
    assert outside.openai.models.retrieve(CHAT).owned_by == "allod"
    assert cards[CHAT].max_context_length == 3072  # type: ignore[attr-defined]
    with pytest.raises(openai.NotFoundError, match=f"did you mean '{CHAT}'"):
        outside.openai.models.retrieve("allod-test-modle")
    with pytest.raises(openai.NotFoundError, match=f"Did you mean '{CHAT}'") as unknown:
        outside.openai.chat.completions.create(model="allod-test-modle", messages=HELLO)
    assert (unknown.value.code, unknown.value.param) == ("model.unknown", "model")


def test_a_key_that_is_no_longer_or_never_was_one(outside: Outside) -> None:
    node = outside.node
    expired, revoked = node.key(), node.key()
    with sqlite3.connect(node.home / "state.sqlite3") as state:
        changed = state.execute(
            "update keys set expires_us = ? where key_id = ?",
            (time.time_ns() // 1000, expired.split("_")[1]),
        )
        assert changed.rowcount == 1
    node.cli("key", "revoke", revoked.split("_")[1])  # also brings the other one's end to the fronts
    made_up = expired[:-8] + "AAAAAAAA"
    for key, code in (
        (expired, "key.expired"),
        (revoked, "key.unknown"),
        (made_up, "key.unknown"),
        ("sk-of-another-house", "key.malformed"),
    ):
        sdk = outside.with_key(key)
        for asked in (
            lambda s: s.chat.completions.create(model=CHAT, messages=HELLO),
            lambda s: s.models.list(),
        ):
            with pytest.raises(openai.AuthenticationError) as refused:
                asked(sdk)
            assert refused.value.code == code
            assert key not in str(refused.value)


@pytest.mark.parametrize("model", [CHAT, GPU])
def test_a_stream_that_is_left_stops_its_engine(outside: Outside, model: str) -> None:
    ask: dict[str, Any] = {"model": model, "messages": HELLO, "stream": True, "max_tokens": 3000}
    for _ in range(3):  # more than the engine's slots
        stream = outside.openai.chat.completions.create(**ask, extra_body={"ignore_eos": True})
        next(stream)
        next(stream)
        stream.close()
    since = time.monotonic()
    outside.openai.chat.completions.create(model=model, messages=HELLO, max_tokens=4)
    assert time.monotonic() - since < 2
    if model == GPU:
        outside.idle(GPU)
    outside.receipts.append(outside.receipts.pop(-2))
    statement = outside.last(outcome="cancelled")
    assert statement["attempts"][0]["outcome"] == "cancelled"
    assert statement["usage"]["source"] == "estimated"
    assert 0 < statement["usage"]["output_tokens"] < 3000


# --- Mistral ------------------------------------------------------------------------------------------------


def test_mistral_chat(outside: Outside) -> None:
    answer = outside.mistral.chat.complete(
        model=CHAT, messages=HELLO, random_seed=7, temperature=0.25, max_tokens=24
    )
    assert answer.choices[0].message.content
    outside.last(
        action="chat",
        usage=outside.used(answer.usage),
        sampling={"max_tokens": "24", "seed": "7", "temperature": "0.25"},
    )
    form = outside.mistral.chat.complete(model=CHAT, messages=HELLO, max_tokens=80, response_format=FORM)
    assert set(json.loads(str(form.choices[0].message.content))) == {"name"}


def test_mistral_stream(outside: Outside) -> None:
    with outside.mistral.chat.stream(
        model=CHAT, messages=HELLO, temperature=0, max_tokens=24,
        http_headers={"allod-data-class": "confidential"},
    ) as stream:  # fmt: skip
        chunks = [event.data for event in stream]
    assert "".join(str(c.choices[0].delta.content) for c in chunks)
    assert chunks[-1].choices[0].finish_reason == "stop"
    outside.last(usage=outside.used(chunks[-1].usage), data_class="confidential")


def test_a_mistral_stream_that_is_left_stops_its_engine(outside: Outside) -> None:
    with outside.mistral.chat.stream(model=GPU, messages=HELLO, temperature=1.5, random_seed=3) as stream:
        next(iter(stream))
    outside.idle(GPU)
    statement = outside.last(outcome="cancelled", sampling={"seed": "3", "temperature": "1.5"})
    assert statement["usage"]["source"] == "estimated"


def test_mistral_tools_round_trip(outside: Outside) -> None:
    question: list[Any] = [{"role": "user", "content": "What is the weather in Paris?"}]
    ask: dict[str, Any] = {"model": CHAT, "tools": [WEATHER], "temperature": 0, "max_tokens": 80}
    choice = outside.mistral.chat.complete(messages=question, **ask).choices[0]
    assert choice.message.tool_calls
    call = choice.message.tool_calls[0]
    assert call.function.name == "get_weather"
    history = [
        *question,
        {"role": "assistant", "content": "", "tool_calls": [call.model_dump(exclude_unset=True)]},
        {"role": "tool", "tool_call_id": call.id, "name": "get_weather", "content": "sunny, 21 degrees"},
    ]
    answer = outside.mistral.chat.complete(messages=history, **ask)
    assert "21" in str(answer.choices[0].message.content)
    outside.last(usage=outside.used(answer.usage))


def test_mistral_embeddings(outside: Outside) -> None:
    answer = outside.mistral.embeddings.create(model=EMBED, inputs=["bread"], output_dimension=64)
    assert len(answer.data[0].embedding or []) == 64
    outside.last(action="embed", usage=outside.used(answer.usage))
    whole = outside.mistral.embeddings.create(model=EMBED, inputs=["bread"])
    theirs = outside.openai.embeddings.create(model=EMBED, input=["bread"])
    assert whole.data[0].embedding == pytest.approx(theirs.data[0].embedding, abs=1e-6)


def test_mistral_ocr(outside: Outside) -> None:
    document: Any = {"type": "document_url", "document_url": data_url(text_pdf("Kontostand 1.234,56 EUR"))}
    answer = outside.mistral.ocr.process(model=OCR, document=document)
    assert "1.234,56 EUR" in answer.pages[0].markdown
    used = {"input_tokens": 0, "output_tokens": 0, "pages": answer.usage_info.pages_processed}
    outside.last(action="ocr", endpoint="/v1/ocr", usage=used | {"source": "engine"})


def test_mistral_models_and_what_it_is_refused(outside: Outside) -> None:
    cards = {card.id: card for card in outside.mistral.models.list().data or []}
    assert set(cards) == {OCR, CHAT, EMBED, GPU}
    assert cards[OCR].capabilities.ocr
    assert outside.mistral.models.retrieve(model_id=CHAT).max_context_length == 3072
    before = len(outside.receipts)
    with pytest.raises(HTTPValidationError, match="fill-in-the-middle"):
        outside.mistral.fim.complete(model=CHAT, prompt="def f(", suffix="return 1")
    with pytest.raises(HTTPValidationError) as refused:
        outside.mistral.chat.complete(model=CHAT, messages=HELLO, guardrails=[{"block_on_error": True}])
    assert refused.value.data.detail is not None
    assert refused.value.data.detail[0].loc == ["body", "guardrails"]
    with pytest.raises(HTTPValidationError, match="float only"):
        outside.mistral.embeddings.create(model=EMBED, inputs=["x"], output_dtype="int8")
    with pytest.raises(SDKError, match=f"[Dd]id you mean '{CHAT}'") as unknown:
        outside.mistral.chat.complete(model="allod-test-modle", messages=HELLO)
    assert unknown.value.status_code == 404
    assert len(outside.receipts) == before, "nothing was asked of a model"


# --- the ledger, after all of the above ---------------------------------------------------------------------


def test_the_ledger_holds_one_receipt_of_each_answer_and_no_other(outside: Outside) -> None:
    exchanges = outside.node.cli("receipt", "ls", "--limit", "500")["exchanges"]
    logged = [view["statement"]["id"] for view in exchanges]
    assert sorted(logged) == sorted(outside.receipts)
    assert {view["statement"]["project"] for view in exchanges} == {"default"}
    assert outside.node.cli("ledger", "verify", str(outside.node.home / "ledger"))["ok"]


def test_tls_is_verified_with_the_node_s_own_certificate(tmp_path_factory: pytest.TempPathFactory) -> None:
    with running_node(served_home(tmp_path_factory.mktemp("tls"), (EMBED,)), "--tls-self-signed") as node:
        assert node.url.startswith("https://")
        certificate = ssl.create_default_context(cafile=node.home / "keys" / "self-signed.crt")
        ask: dict[str, Any] = {"api_key": node.key(), "base_url": f"{node.url}/v1", "max_retries": 0}
        with openai.DefaultHttpxClient(verify=certificate, trust_env=False) as http:
            answer = openai.OpenAI(**ask, http_client=http).embeddings.create(model=EMBED, input="bread")
        assert len(answer.data[0].embedding) == 384
        with pytest.raises(openai.APIConnectionError):
            openai.OpenAI(**ask).embeddings.create(model=EMBED, input="bread")
        with pytest.raises(httpx.RemoteProtocolError):
            httpx.get(node.url.replace("https", "http"), trust_env=False)
