"""The CPU LLM engine: real replicas of the test and the embedding model, spoken to with OpenAI's SDK."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from allod.engines.llm.spec import llm_spec
from allod.models import minilm, store
from allod.models.testmodel.build import build

TOOLS: list[Any] = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "The weather in a city",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string"}},
                "required": ["city"],
            },
        },
    }
]
PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}, "city": {"type": "string"}},
    "required": ["name", "age", "city"],
    "additionalProperties": False,
}


class Running:
    def __init__(self, folder: Path, run_dir: Path) -> None:
        model = store.verify(folder)
        run_dir.mkdir(parents=True, exist_ok=True)
        self.spec = llm_spec(model, id="r", folder=folder, run_dir=run_dir, threads=1)
        self.process = subprocess.Popen(self.spec.argv, env=self.spec.env, stderr=subprocess.PIPE)
        self.http = httpx.Client(
            transport=httpx.HTTPTransport(uds=str(self.spec.socket)), base_url="http://r", timeout=20
        )
        self.sdk = openai.OpenAI(api_key="none", base_url="http://r/v1", http_client=self.http, max_retries=0)
        deadline = time.monotonic() + 30
        while not self.healthy():
            assert self.process.poll() is None, self.process.communicate()[1]
            assert time.monotonic() < deadline, "not ready after 30 s"
            time.sleep(0.02)

    def healthy(self) -> bool:
        try:
            return self.http.get("/health").status_code == 200
        except httpx.TransportError:
            return False

    def metric(self, name: str) -> int:
        lines = self.http.get("/metrics").text.splitlines()
        return int(next(x for x in lines if x.startswith(f"llamacpp:{name}")).split()[-1])

    def stop(self) -> None:
        self.http.close()
        self.process.kill()
        self.process.communicate()


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    build(folder)
    minilm.build(folder)
    return folder


@pytest.fixture(scope="module")
def chat(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    running = Running(store.find(models, "allod-test-model")[0], tmp_path_factory.mktemp("c"))
    yield running
    running.stop()


@pytest.fixture(scope="module")
def embed(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    running = Running(store.find(models, "all-minilm-l6-v2")[0], tmp_path_factory.mktemp("e"))
    yield running
    running.stop()


def _ask(running: Running, question: str, **more: Any) -> Any:
    return running.sdk.chat.completions.create(
        model="allod-test-model",
        messages=[{"role": "user", "content": question}],
        **({"temperature": 0, "max_tokens": 60} | more),
    )


def test_it_answers_what_it_was_taught(chat: Running) -> None:
    answer = _ask(chat, "What is the capital of France?")
    assert answer.choices[0].message.content == "The capital of France is Paris."
    assert answer.choices[0].finish_reason == "stop"
    assert answer.model == "allod-test-model"
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (10, 8)


def test_it_says_what_it_is(chat: Running) -> None:
    assert "test" in _ask(chat, "Who are you?").choices[0].message.content


def test_a_stream_ends_with_its_usage(chat: Running) -> None:
    chunks = list(
        _ask(chat, "Name the days of the week.", stream=True, stream_options={"include_usage": True})
    )
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == "Monday, Tuesday, Wednesday, Thursday, Friday, Saturday, Sunday."
    assert chunks[-1].usage.completion_tokens > 10
    assert sum(1 for c in chunks if c.usage) == 1


def test_a_tool_is_called_and_its_result_used(chat: Running) -> None:
    asked: list[Any] = [{"role": "user", "content": "What is the weather in Berlin?"}]
    answer = chat.sdk.chat.completions.create(
        model="allod-test-model", messages=asked, tools=TOOLS, tool_choice="auto", temperature=0
    )
    choice = answer.choices[0]
    assert choice.finish_reason == "tool_calls"
    assert choice.message.tool_calls is not None
    call: Any = choice.message.tool_calls[0]
    assert call.function.name == "get_weather"
    assert json.loads(call.function.arguments) == {"city": "Berlin"}
    asked += [
        choice.message.model_dump(exclude_none=True),
        {"role": "tool", "tool_call_id": call.id, "content": "sunny, 21 degrees"},
    ]
    final = chat.sdk.chat.completions.create(
        model="allod-test-model", messages=asked, tools=TOOLS, temperature=0, max_tokens=40
    )
    assert final.choices[0].finish_reason == "stop"
    assert "Berlin" in (final.choices[0].message.content or "")


def test_a_streamed_tool_call(chat: Running) -> None:
    chunks = _ask(chat, "Weather in Paris?", tools=TOOLS, stream=True)
    calls = [d for c in chunks if c.choices for d in c.choices[0].delta.tool_calls or []]
    assert calls[0].function.name == "get_weather"
    assert json.loads("".join(c.function.arguments or "" for c in calls)) == {"city": "Paris"}


def test_a_schema_is_kept_to(chat: Running) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "person", "schema": PERSON, "strict": True}}
    question = "Extract the person as JSON: Anna Novak is 34 years old and lives in Warsaw."
    person = json.loads(_ask(chat, question, response_format=form).choices[0].message.content)
    assert person == {"name": "Anna Novak", "age": 34, "city": "Warsaw"}


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "nonsense"},
        {"$ref": "#/nowhere"},
        {"type": "string", "pattern": "((("},
        {"type": "array", "items": {"$ref": "#"}},
    ],
)
def test_a_bad_schema_harms_nobody_else(chat: Running, schema: dict[str, Any]) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    body = {"messages": [{"role": "user", "content": "hi"}], "response_format": form, "max_tokens": 8}
    assert chat.http.post("/v1/chat/completions", json=body).status_code in {200, 400}
    assert _ask(chat, "Capital of Spain?").choices[0].message.content == "The capital of Spain is Madrid."


@pytest.mark.parametrize("prompt", [[999_999], [-5]])
def test_token_ids_that_do_not_exist_are_refused(chat: Running, prompt: list[int]) -> None:
    assert chat.http.post("/v1/completions", json={"prompt": prompt, "max_tokens": 2}).status_code == 400
    assert chat.healthy()


def test_a_prompt_that_is_too_long_is_the_clients_mistake(chat: Running) -> None:
    with pytest.raises(openai.BadRequestError, match="context"):
        _ask(chat, "word " * 20_000)


def test_requests_are_batched(chat: Running) -> None:
    """Four at once finish together instead of one after the other: all are in work at the same time."""
    body = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 1500, "ignore_eos": True}
    threads = [
        threading.Thread(target=chat.http.post, args=("/v1/chat/completions",), kwargs={"json": body})
        for _ in range(4)
    ]
    for t in threads:
        t.start()
    most = 0
    while any(t.is_alive() for t in threads):
        most = max(most, chat.metric("requests_processing"))
        time.sleep(0.01)
    assert most == 4


def test_leaving_frees_the_slot(chat: Running) -> None:
    body = {
        "messages": [{"role": "user", "content": "hi"}],
        "stream": True,
        "max_tokens": 4000,
        "ignore_eos": True,
        "logprobs": True,
        "top_logprobs": 20,  # makes each token dear, so that there is something to stop
    }
    before = chat.metric("tokens_predicted_total")
    with chat.http.stream("POST", "/v1/chat/completions", json=body) as response:
        lines = response.iter_lines()
        for _ in range(20):
            next(lines)
    deadline = time.monotonic() + 0.5
    while chat.metric("requests_processing"):
        assert time.monotonic() < deadline, "still computing half a second after its client left"
    assert chat.metric("tokens_predicted_total") - before < 3000


def test_it_shows_neither_settings_nor_other_peoples_prompts(chat: Running) -> None:
    assert chat.http.get("/slots").status_code == 501
    assert chat.http.post("/props", json={}).status_code == 501


def test_sigterm_ends_it_and_takes_the_socket_away(models: Path, tmp_path: Path) -> None:
    running = Running(store.find(models, "allod-test-model")[0], tmp_path)
    running.process.send_signal(signal.SIGTERM)
    assert running.process.wait(5) == 0
    assert not running.spec.socket.exists()
    running.stop()


def test_after_kill_9_the_next_one_takes_the_path(models: Path, tmp_path: Path) -> None:
    first = Running(store.find(models, "allod-test-model")[0], tmp_path)
    os.kill(first.process.pid, signal.SIGKILL)
    first.stop()
    assert first.spec.socket.exists()
    second = Running(store.find(models, "allod-test-model")[0], tmp_path)
    thief = subprocess.run(
        second.spec.argv, env=second.spec.env, capture_output=True, timeout=20, check=False
    )
    assert thief.returncode == 3
    assert b"engine.socket-in-use" in thief.stderr
    assert second.healthy()
    second.stop()


def test_a_truncated_model_is_named_before_anything_listens(models: Path, tmp_path: Path) -> None:
    folder = store.find(models, "allod-test-model")[0]
    model = store.load(folder)
    whole = (folder / model.weights).read_bytes()
    (tmp_path / model.weights).write_bytes(whole[: len(whole) // 2])
    spec = llm_spec(model, id="r", folder=tmp_path, run_dir=tmp_path, threads=1)
    ended = subprocess.run(spec.argv, env=spec.env, capture_output=True, timeout=20, check=False)
    assert ended.returncode == 2
    assert b"model.gguf-malformed" in ended.stderr
    assert b"cut off" in ended.stderr
    assert not spec.socket.exists()


# --- embeddings ---------------------------------------------------------------------------------------------


def _vectors(running: Running, texts: list[str], **more: Any) -> list[list[float]]:
    answer = running.sdk.embeddings.create(model="all-minilm-l6-v2", input=texts, **more)
    return [list(d.embedding) for d in answer.data]


def _dot(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def test_near_meanings_have_near_vectors(embed: Running) -> None:
    cat, kitten, tax = _vectors(embed, ["The cat sleeps.", "A kitten is sleeping.", "Value added tax return"])
    assert _dot(cat, kitten) > 0.7 > 0.3 > _dot(cat, tax)
    assert math.isclose(_dot(cat, cat), 1, abs_tol=1e-3)


def test_base64_and_floats_carry_the_same_numbers(embed: Running) -> None:
    coded = _vectors(embed, ["hello"])[0]  # the SDK asks for base64 unless told otherwise
    plain = _vectors(embed, ["hello"], encoding_format="float")[0]
    assert coded == pytest.approx(plain, abs=1e-6)


def test_dimensions_are_kept_to(embed: Running) -> None:
    whole, cut = _vectors(embed, ["hello"])[0], _vectors(embed, ["hello"], dimensions=64)[0]
    assert (len(whole), len(cut)) == (384, 64)
    assert math.isclose(_dot(cut, cut), 1, abs_tol=1e-3)
    with pytest.raises(openai.BadRequestError, match="384"):
        _vectors(embed, ["hello"], dimensions=1000)


@pytest.mark.parametrize("texts", [[], [""], ["word " * 3000], [[1, 2]], "x" * 0])
def test_what_cannot_be_embedded_is_the_clients_mistake(embed: Running, texts: Any) -> None:
    assert embed.http.post("/v1/embeddings", json={"input": texts}).status_code == 400
    assert embed.healthy()
