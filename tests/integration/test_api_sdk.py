"""Unmodified SDKs: every endpoint said to work is called, and failures come as each SDK expects."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import small_node
from mistralai.client import Mistral
from mistralai.client.errors import HTTPValidationError, SDKError

from allod.api import coverage
from allod.api.apps import public_app

TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
SCHEMA = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with small_node.engine(tmp_path_factory.mktemp("run")) as path:
        yield path


@pytest.fixture
async def url(engine: Path) -> AsyncIterator[str]:
    node = small_node.SmallNode([engine])
    async with small_node.serving(small_node.FrontDoor(node, public_app(node))) as address:
        yield address


@pytest.fixture
async def mistral(url: str) -> AsyncIterator[Mistral]:
    async with Mistral(api_key="allod_developer_s", server_url=url) as client:
        yield client


@pytest.fixture
async def gpt(url: str) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(api_key="allod_developer_s", base_url=f"{url}/v1", max_retries=0) as client:
        yield client


def user(text: Any) -> list[Any]:
    return [{"role": "user", "content": text}]


def last_request(engine: Path) -> dict[str, Any]:
    found: dict[str, Any] = small_node.seen(engine)["requests"][-1]
    return found


async def test_mistral_chat_whole(mistral: Mistral, engine: Path) -> None:
    answer = await mistral.chat.complete_async(
        model="tiny", messages=user("Grüße"), random_seed=7, temperature=0.5, max_tokens=3, safe_prompt=True
    )
    assert answer.choices[0].message.content == "Grüße"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.total_tokens == 10
    assert answer.model == "tiny"
    asked = last_request(engine)
    assert asked["body"]["seed"] == 7
    assert "random_seed" not in asked["body"]
    assert [m["role"] for m in asked["body"]["messages"]] == ["system", "user"]
    assert "allod-internal-caller" in asked["headers"]


async def test_mistral_chat_stream_ends_with_reason_and_usage(mistral: Mistral) -> None:
    stream = await mistral.chat.stream_async(model="tiny", messages=user("one two three"))
    chunks = [event.data async for event in stream]
    text = "".join(chunk.choices[0].delta.content for chunk in chunks)
    assert text == "one two three"
    assert [c.choices[0].finish_reason for c in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert chunks[-1].usage.completion_tokens == 3


@pytest.mark.parametrize("streamed", [False, True])
async def test_mistral_tools_round_trip(mistral: Mistral, engine: Path, streamed: bool) -> None:
    ask: dict[str, Any] = {"model": "tiny", "tools": [TOOL], "tool_choice": "any"}
    if streamed:
        stream = await mistral.chat.stream_async(messages=user("weather?"), **ask)
        choice = [event.data async for event in stream][-1].choices[0]
        call = choice.delta.tool_calls[0]
    else:
        choice = (await mistral.chat.complete_async(messages=user("weather?"), **ask)).choices[0]
        call = choice.message.tool_calls[0]
    assert choice.finish_reason == "tool_calls"
    assert last_request(engine)["body"]["tool_choice"] == "required"
    assert re.fullmatch("[a-zA-Z0-9]{9}", call.id)
    assert call.function.name == "weather"
    assert json.loads(call.function.arguments) == {"city": "Wien"}
    history = [
        *user("weather?"),
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [
                {"id": call.id, "function": {"name": "weather", "arguments": {"city": "Wien"}}},
            ],
        },
        {"role": "tool", "tool_call_id": call.id, "name": "weather", "content": "sunny"},
    ]
    answer = await mistral.chat.complete_async(messages=history, **ask)
    assert answer.choices[0].message.content == "sunny"
    told = last_request(engine)["body"]["messages"]
    assert told[1]["tool_calls"][0]["function"]["arguments"] == '{"city":"Wien"}'
    assert told[1]["tool_calls"][0]["id"] == told[2]["tool_call_id"] == call.id


async def test_mistral_structured_output(mistral: Mistral, engine: Path) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "person", "schema": SCHEMA, "strict": True}}
    answer = await mistral.chat.complete_async(model="tiny", messages=user("who"), response_format=form)
    assert json.loads(answer.choices[0].message.content) == {"name": "x"}
    assert last_request(engine)["body"]["response_format"]["json_schema"]["strict"] is True


@pytest.mark.parametrize("streamed", [False, True])
async def test_mistral_thinking_comes_as_a_chunk(mistral: Mistral, streamed: bool) -> None:
    if streamed:
        stream = await mistral.chat.stream_async(model="tiny", messages=user("think"))
        deltas = [event.data.choices[0].delta.content async for event in stream]
        thought = "".join(d[0].thinking[0].text for d in deltas if isinstance(d, list))
        said = "".join(d for d in deltas if isinstance(d, str))
    else:
        answer = await mistral.chat.complete_async(model="tiny", messages=user("think"))
        thinking, text = answer.choices[0].message.content
        thought, said = thinking.thinking[0].text, text.text
    assert (thought, said) == ("six times seven", "42")


@pytest.mark.parametrize("streamed", [False, True])
async def test_mistral_prefix_begins_the_answer(mistral: Mistral, engine: Path, streamed: bool) -> None:
    messages = [*user("write"), {"role": "assistant", "content": "Dear ", "prefix": True}]
    if streamed:
        stream = await mistral.chat.stream_async(model="tiny", messages=messages)
        said = "".join([event.data.choices[0].delta.content async for event in stream])
    else:
        answer = await mistral.chat.complete_async(model="tiny", messages=messages)
        said = answer.choices[0].message.content
    assert said == "Dear Dear "  # the prefix, and then what the script generates: the last message again
    assert last_request(engine)["body"]["continue_final_message"] is True


async def test_mistral_refuses_by_name_what_it_would_have_to_ignore(mistral: Mistral, url: str) -> None:
    cases: list[tuple[dict[str, Any], list[Any]]] = [
        ({"guardrails": [{"block_on_error": True}]}, ["body", "guardrails"]),
        ({"tools": [{"type": "image_generation"}]}, ["body", "tools", 0, "type"]),
        ({"min_tokens": 4}, ["body", "min_tokens"]),
        ({"n": 1000}, ["body", "n"]),
        ({"messages": user([{"type": "image_url", "image_url": "data:,"}])}, ["body", "messages"]),
    ]
    for more, loc in cases:
        with pytest.raises(HTTPValidationError) as caught:
            await mistral.chat.complete_async(**({"model": "tiny", "messages": user("x")} | more))
        assert caught.value.data.detail[0].loc == loc
    async with httpx.AsyncClient(base_url=url) as plain:
        answer = await plain.post(
            "/mistral/v1/chat/completions",
            json={"model": "tiny", "messages": user("x"), "max_token": 4},
            headers={"authorization": "Bearer allod_developer_s"},
        )
    assert answer.status_code == 422
    detail = answer.json()["detail"][0]
    assert (detail["type"], detail["loc"], detail["input"]) == ("extra_forbidden", ["body", "max_token"], 4)
    assert "max_tokens" in detail["msg"]


async def test_mistral_fim(mistral: Mistral, engine: Path) -> None:
    answer = await mistral.fim.complete_async(model="filler", prompt="def f(", suffix="return 1")
    assert answer.choices[0].message.content == "<[SUF]return 1[PRE]def f(>"
    stream = await mistral.fim.stream_async(model="filler", prompt="a", suffix="b")
    assert "".join([e.data.choices[0].delta.content async for e in stream]) == "<[SUF]b[PRE]a>"
    with pytest.raises(HTTPValidationError, match="suffix"):
        await mistral.fim.complete_async(model="tiny", prompt="def f(", suffix="return 1")


async def test_mistral_embeddings(mistral: Mistral) -> None:
    answer = await mistral.embeddings.create_async(model="vectors", inputs=["a", "b"], output_dimension=4)
    assert [row.embedding for row in answer.data] == [[0.5] * 4] * 2
    assert answer.usage.prompt_tokens == 2
    for more in ({"output_dtype": "int8"}, {"output_dimension": 2}):
        with pytest.raises(HTTPValidationError, match=next(iter(more))):
            await mistral.embeddings.create_async(model="vectors", inputs="a", **more)


async def test_models_satisfy_both_sdks(mistral: Mistral, gpt: openai.AsyncOpenAI) -> None:
    cards = {card.id: card for card in (await mistral.models.list_async()).data}
    assert cards["filler"].capabilities.completion_fim
    assert not cards["tiny"].capabilities.completion_fim
    assert cards["tiny"].max_context_length == 2048
    assert (await mistral.models.retrieve_async(model_id="devstral")).id == "tiny"
    assert {model.id async for model in gpt.models.list()} == set(cards)
    assert (await gpt.models.retrieve("devstral")).owned_by == "allod"
    with pytest.raises(openai.NotFoundError, match="did you mean 'devstral'"):
        await gpt.models.retrieve("devstrall")


async def test_evidence_reaches_the_client(url: str) -> None:
    async with httpx.AsyncClient(base_url=url) as plain:
        for stream in (False, True):
            answer = await plain.post(
                "/mistral/v1/chat/completions",
                json={"model": "tiny", "messages": user("x"), "stream": stream},
                headers={
                    "authorization": "Bearer allod_developer_s",
                    "allod-data-class": "confidential",
                    "allod-internal-caller": "forged",
                },
            )
            assert answer.headers["allod-receipt"] == small_node.RECEIPT
            assert answer.headers["allod-site"] == "here"
            assert not [name for name in answer.headers if name.startswith("allod-internal")]


async def test_class_and_failures_pass_through(mistral: Mistral, engine: Path) -> None:
    with pytest.raises(SDKError) as caught:
        await mistral.chat.complete_async(
            model="tiny", messages=user("fail:403"), http_headers={"allod-data-class": "restricted"}
        )
    assert caught.value.status_code == 403
    body = json.loads(caught.value.body)
    assert (body["object"], body["message"], body["code"]) == ("error", "as scripted", "scripted.failure")
    assert last_request(engine)["headers"]["allod-data-class"] == "restricted"
    with pytest.raises(SDKError) as caught:
        await mistral.chat.complete_async(model="tiny", messages=user("fail:503"))
    assert caught.value.headers["retry-after"] == "7"


async def test_no_key_is_401_in_both_shapes(url: str) -> None:
    async with Mistral(api_key="allod_wrong", server_url=url) as wrong:
        with pytest.raises(SDKError) as caught:
            await wrong.chat.complete_async(model="tiny", messages=user("x"))
    assert caught.value.status_code == 401
    async with openai.AsyncOpenAI(api_key="allod_wrong", base_url=f"{url}/v1", max_retries=0) as client:
        with pytest.raises(openai.AuthenticationError, match="API key"):
            await client.models.list()


async def test_a_torn_stream_is_never_a_good_end(mistral: Mistral) -> None:
    stream = await mistral.chat.stream_async(model="tiny", messages=user("torn"))
    chunks = [event.data async for event in stream]
    assert chunks[-1].choices[0].finish_reason == "error"


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_client_that_leaves_cancels_the_engine(url: str, engine: Path, streamed: bool) -> None:
    before = small_node.seen(engine)["cancelled"]
    body = {"model": "tiny", "messages": user("slow"), "stream": streamed}
    headers = {"authorization": "Bearer allod_developer_s"}

    async def ask() -> None:
        async with (
            httpx.AsyncClient(base_url=url) as plain,
            plain.stream("POST", "/mistral/v1/chat/completions", json=body, headers=headers) as answer,
        ):
            async for _ in answer.aiter_bytes():
                pass

    asking = asyncio.create_task(ask())
    await asyncio.sleep(0.4)
    asking.cancel()
    for _ in range(100):
        if small_node.seen(engine)["cancelled"] > before:
            return
        await asyncio.sleep(0.02)
    pytest.fail("the engine kept working for a client that had left")


async def test_openai_hot_routes_through_the_same_door(gpt: openai.AsyncOpenAI) -> None:
    chat = await gpt.chat.completions.create(model="tiny", messages=user("hello"))
    assert chat.choices[0].message.content == "hello"
    stream = await gpt.chat.completions.create(model="tiny", messages=user("hello"), stream=True)
    assert "".join([c.choices[0].delta.content or "" async for c in stream if c.choices]) == "hello"
    vectors = await gpt.embeddings.create(model="vectors", input=["a"], encoding_format="float")
    assert len(vectors.data[0].embedding) == 4


async def test_absent_endpoints_say_so(gpt: openai.AsyncOpenAI, mistral: Mistral) -> None:
    with pytest.raises(openai.NotFoundError, match=r"/v1/responses yet \(see docs/api.md\)"):
        await gpt.responses.create(model="tiny", input="x")
    with pytest.raises(SDKError, match="does not serve /v1/moderations yet"):
        await mistral.classifiers.moderate_async(model="tiny", inputs="x")


CALLS = {
    ("OpenAI", "/v1/chat/completions"): lambda g, _: g.chat.completions.create(
        model="tiny", messages=user("a")
    ),
    ("OpenAI", "/v1/completions"): lambda g, _: g.completions.create(model="tiny", prompt="a"),
    ("OpenAI", "/v1/embeddings"): lambda g, _: g.embeddings.create(
        model="vectors", input="a", encoding_format="float"
    ),
    ("OpenAI", "/v1/models"): lambda g, _: g.models.list(),
    ("OpenAI", "/v1/models/{model}"): lambda g, _: g.models.retrieve("tiny"),
    ("Mistral", "/v1/chat/completions"): lambda _, m: m.chat.complete_async(model="tiny", messages=user("a")),
    ("Mistral", "/v1/fim/completions"): lambda _, m: m.fim.complete_async(
        model="filler", prompt="a", suffix="b"
    ),
    ("Mistral", "/v1/embeddings"): lambda _, m: m.embeddings.create_async(model="vectors", inputs="a"),
    ("Mistral", "/v1/models"): lambda _, m: m.models.list_async(),
    ("Mistral", "/v1/models/{model}"): lambda _, m: m.models.retrieve_async(model_id="tiny"),
}
ENGINE_OF_ITS_OWN = {("Mistral", "/v1/ocr")}  # answered by the OCR engine, which has tests of its own


async def test_everything_said_to_work_was_called(gpt: openai.AsyncOpenAI, mistral: Mistral) -> None:
    served = {(e.api, e.path) for e in coverage.TABLE if e.state != "not yet" and e.api != "allod"}
    assert served - ENGINE_OF_ITS_OWN == set(CALLS)
    for call in CALLS.values():
        await call(gpt, mistral)


async def test_everything_said_to_be_absent_is(url: str) -> None:
    async with httpx.AsyncClient(base_url=url, headers={"authorization": "Bearer allod_owner_s"}) as plain:
        for entry in coverage.TABLE:
            if entry.state != "not yet" or entry.method == "WS":
                continue
            agent = {"user-agent": "mistral-client-python/3"} if entry.api == "Mistral" else {}
            answer = await plain.request(entry.method, re.sub(r"\{.*?\}", "x", entry.path), headers=agent)
            assert answer.status_code in (404, 405), entry
            assert ("error" in answer.json()) == (entry.api == "OpenAI"), entry


def test_the_documentation_is_fresh() -> None:
    page = Path(__file__).parents[2] / "docs" / "api.md"
    assert page.read_text() == coverage.page(), "run: python -m allod.api.coverage > docs/api.md"
