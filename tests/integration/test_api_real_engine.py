"""The Mistral SDK against llama.cpp with the test model: the translation holds with a real engine."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import small_node
from mistralai.client import Mistral
from mistralai.client.errors import SDKError

from allod.api.apps import public_app
from allod.models.testmodel import build

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


@pytest.fixture(scope="module")
def replica(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("real")
    model = next(build.build(folder / "models").glob("*.gguf"))
    path = folder / "front-0.sock"
    program = [sys.executable, "-m", "allod.engines.llm", "--socket", str(path), "--model", str(model)]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([*program, "--alias", "tiny", "--ctx", "512"], stderr=log)
        try:
            _wait(path, process)
            yield path
        finally:
            process.kill()
            process.wait(10)


def _wait(path: Path, process: subprocess.Popen[bytes]) -> None:
    transport = httpx.HTTPTransport(uds=str(path))
    with httpx.Client(transport=transport, base_url="http://replica") as client:
        for _ in range(400):
            assert process.poll() is None, "the replica ended"
            with contextlib.suppress(httpx.TransportError):
                if client.get("/health").status_code == 200:
                    return
            time.sleep(0.05)
    pytest.fail("the replica did not become ready")


@pytest.fixture
async def mistral(replica: Path) -> AsyncIterator[Mistral]:
    node = small_node.SmallNode([replica])
    async with (
        small_node.serving(small_node.FrontDoor(node, public_app(node))) as url,
        Mistral(api_key="allod_developer_s", server_url=url) as client,
    ):
        yield client


def user(text: str) -> list[Any]:
    return [{"role": "user", "content": text}]


async def test_stream_says_what_the_whole_answer_says(mistral: Mistral) -> None:
    ask: dict[str, Any] = {"model": "tiny", "messages": user("Hello"), "temperature": 0, "max_tokens": 24}
    whole = await mistral.chat.complete_async(**ask)
    chunks = [event.data async for event in await mistral.chat.stream_async(**ask)]
    assert "".join(c.choices[0].delta.content for c in chunks) == whole.choices[0].message.content != ""
    assert chunks[-1].choices[0].finish_reason == whole.choices[0].finish_reason == "stop"
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens > 0


async def test_a_limit_of_the_request_is_length(mistral: Mistral) -> None:
    answer = await mistral.chat.complete_async(model="tiny", messages=user("Hello"), max_tokens=2)
    assert (answer.choices[0].finish_reason, answer.usage.completion_tokens) == ("length", 2)


async def test_the_prefix_is_continued_not_answered(mistral: Mistral) -> None:
    ask: dict[str, Any] = {"model": "tiny", "temperature": 0, "max_tokens": 24}
    begun = [*user("Hello"), {"role": "assistant", "content": "Hello! How", "prefix": True}]
    answer = await mistral.chat.complete_async(messages=begun, **ask)
    assert answer.choices[0].message.content.startswith("Hello! How")
    assert len(answer.choices[0].message.content) > len("Hello! How")
    assert answer.usage.completion_tokens > 0
    chunks = [event.data async for event in await mistral.chat.stream_async(messages=begun, **ask)]
    assert "".join(c.choices[0].delta.content for c in chunks) == answer.choices[0].message.content


async def test_a_schema_binds_the_answer(mistral: Mistral) -> None:
    schema = {
        "type": "object",
        "properties": {"name": {"type": "string", "maxLength": 8}},
        "required": ["name"],
        "additionalProperties": False,
    }
    answer = await mistral.chat.complete_async(
        model="tiny",
        messages=user("Hello"),
        max_tokens=80,
        response_format={"type": "json_schema", "json_schema": {"name": "person", "schema": schema}},
    )
    assert set(json.loads(answer.choices[0].message.content)) == {"name"}


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_tool_is_called_and_its_answer_used(mistral: Mistral, streamed: bool) -> None:
    ask: dict[str, Any] = {"model": "tiny", "tools": [WEATHER], "temperature": 0, "max_tokens": 80}
    question = user("What is the weather in Paris?")
    if streamed:
        chunks = [event.data async for event in await mistral.chat.stream_async(messages=question, **ask)]
        choice, message = chunks[-1].choices[0], chunks[-1].choices[0].delta
    else:
        choice = (await mistral.chat.complete_async(messages=question, **ask)).choices[0]
        message = choice.message
    assert choice.finish_reason == "tool_calls"
    call = message.tool_calls[0]
    assert call.function.name == "get_weather"
    assert "Paris" in json.loads(call.function.arguments)["city"]
    assert re.fullmatch("[a-zA-Z0-9]{9}", call.id)
    history = [
        *question,
        {"role": "assistant", "content": "", "tool_calls": [call.model_dump(exclude_unset=True)]},
        {"role": "tool", "tool_call_id": call.id, "name": "get_weather", "content": "sunny, 21 degrees"},
    ]
    answer = await mistral.chat.complete_async(messages=history, **ask)
    assert "21" in answer.choices[0].message.content


async def test_the_engine_s_own_refusal_arrives(mistral: Mistral) -> None:
    with pytest.raises(SDKError, match="context size") as caught:
        await mistral.chat.complete_async(model="tiny", messages=user("Hello " * 3000))
    assert caught.value.status_code == 400
