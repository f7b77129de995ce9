"""What a Mistral conversation says, its OpenAI form says; what an engine streams, Mistral's form has."""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mistralai.client import models as sdk

from allod.api import problems
from allod.api.mistral import answer, request
from allod.api.mistral.answer import Reframer, Shape

text = st.text(max_size=20)
words = st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=8)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=5,
)
text_chunk = st.builds(lambda t: {"type": "text", "text": t}, text)
image_chunk = st.builds(
    lambda url, bare: {"type": "image_url", "image_url": url if bare else {"url": url}}, text, st.booleans()
)
reference_chunk = st.builds(
    lambda ids: {"type": "reference", "reference_ids": ids}, st.lists(st.integers(0, 99) | words, max_size=3)
)
think_chunk = st.builds(lambda t: {"type": "thinking", "thinking": [{"type": "text", "text": t}]}, text)
call = st.builds(
    lambda i, n, a: {"id": i, "type": "function", "function": {"name": n, "arguments": a}},
    words,
    words,
    st.dictionaries(words, json_values, max_size=3) | text,
)


def content(*chunks: Any) -> Any:
    return text | st.lists(st.one_of(*chunks), min_size=1, max_size=4)


user = st.builds(lambda c: {"role": "user", "content": c}, content(text_chunk, image_chunk))
assistant = st.builds(
    lambda c, calls: {"role": "assistant", "content": c} | ({"tool_calls": calls} if calls else {}),
    content(text_chunk, reference_chunk, think_chunk),
    st.lists(call, max_size=2),
)
tool = st.builds(
    lambda c, i, n: {"role": "tool", "content": c, "tool_call_id": i, "name": n},
    content(text_chunk, reference_chunk),
    words,
    words,
)
system = st.builds(lambda c: {"role": "system", "content": c}, content(text_chunk))
conversation = st.builds(
    lambda head, last: [*head, last], st.lists(system | user | assistant | tool, max_size=5), user
)


def pieces_of(content: Any) -> tuple[str, str, list[str]]:
    """What a message's content says, in either dialect: its text, its thinking, its images."""
    if content is None or isinstance(content, str):
        return content or "", "", []
    said, thought, images = "", "", []
    for chunk in content:
        match chunk["type"]:
            case "text":
                said += chunk["text"]
            case "reference":
                said += "".join(f"[{reference}]" for reference in chunk["reference_ids"])
            case "thinking":
                thought += "".join(part["text"] for part in chunk["thinking"])
            case "image_url":
                url = chunk["image_url"]
                images.append(url if isinstance(url, str) else url["url"])
    return said, thought, images


@given(conversation)
def test_nothing_of_a_conversation_is_lost(messages: list[Any]) -> None:
    wanted = request.parse({"model": "m", "messages": messages}, request.ChatRequest)
    translated = request.chat(wanted)["messages"]
    assert [m["role"] for m in translated] == [m["role"] for m in messages]
    for given_, told in zip(messages, translated, strict=True):
        said, thought, images = pieces_of(given_["content"])
        told_said, _, told_images = pieces_of(told["content"])
        assert (said, thought, images) == (told_said, told.get("reasoning_content", ""), told_images)
        assert given_.get("tool_call_id") == told.get("tool_call_id")
        for one, other in zip(given_.get("tool_calls", []), told.get("tool_calls", []), strict=True):
            assert (one["id"], one["function"]["name"]) == (other["id"], other["function"]["name"])
            arguments = one["function"]["arguments"]
            same = json.loads(other["function"]["arguments"]) if isinstance(arguments, dict) else None
            assert other["function"]["arguments"] == arguments or same == arguments


@given(st.dictionaries(st.sampled_from(sorted(request.ChatRequest.__struct_fields__)) | words, json_values))
def test_a_request_is_understood_or_refused_with_a_place(fields: dict[str, Any]) -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": "x"}]} | fields
    try:
        translated = request.chat(request.parse(body, request.ChatRequest))
    except problems.Invalid as error:
        refusal = sdk.ValidationError.model_validate(problems.shape(error, "mistral")["detail"][0])
    else:
        assert set(body) <= set(request.ChatRequest.__struct_fields__)
        msgspec.json.encode(translated)
        return
    assert refusal.msg
    assert refusal.loc[0] == "body"


fragment = st.one_of(
    st.builds(lambda t: {"content": t}, text),
    st.builds(lambda t: {"reasoning_content": t}, text),
    st.builds(
        lambda i, a: {"tool_calls": [{"index": i, "function": {"arguments": a}}]}, st.integers(0, 2), text
    ),
)


@given(st.lists(fragment, max_size=12), text, st.sampled_from(["stop", "length", "tool_calls", None]))
def test_a_stream_keeps_every_fragment_and_pleases_the_sdk(
    deltas: list[Any], prefix: str, reason: Any
) -> None:
    reframer = Reframer(Shape(model="m", created=1, prefix=prefix))
    chunks: list[Any] = []
    for delta in [{"role": "assistant"}, *deltas]:
        chunks += reframer.feed({"id": "c", "choices": [{"index": 0, "delta": delta, "finish_reason": None}]})
    chunks += reframer.feed({"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]})
    chunks.append(reframer.end(complete=reason is not None))
    said = [pieces_of(c["choices"][0]["delta"]["content"]) for c in chunks]
    assert "".join(s for s, _, _ in said) == prefix + "".join(d.get("content", "") for d in deltas)
    assert "".join(t for _, t, _ in said) == "".join(d.get("reasoning_content", "") for d in deltas)
    for chunk in chunks:
        sdk.CompletionChunk.model_validate(chunk)
    last = chunks[-1]["choices"][0]
    assert last["finish_reason"] != "error" if reason else last["finish_reason"] == "error"
    whole = answer.folded(chunks)
    sdk.ChatCompletionResponse.model_validate(whole)
    assert pieces_of(whole["choices"][0]["message"]["content"])[:2] == (
        "".join(s for s, _, _ in said),
        "".join(t for _, t, _ in said),
    )
    expected: dict[int, str] = {}
    for delta in deltas:
        for part in delta.get("tool_calls", []):
            expected[part["index"]] = expected.get(part["index"], "") + part["function"]["arguments"]
    calls = {c["index"]: c["function"]["arguments"] for c in last["delta"].get("tool_calls", [])}
    assert calls == ({at: arguments or "{}" for at, arguments in expected.items()} if reason else {})


@given(st.text(max_size=40))
@settings(max_examples=200)
def test_tool_call_ids_are_mistral_s_and_stable(engine_id: str) -> None:
    made = answer.tool_call_id(engine_id)
    assert re.fullmatch("[a-zA-Z0-9]{9}", made)
    assert answer.tool_call_id(made) == made == answer.tool_call_id(engine_id)


@pytest.mark.parametrize(
    ("reason", "tokens", "asked", "calls", "told"),
    [
        ("stop", 3, None, False, "stop"),
        ("stop", 3, None, True, "tool_calls"),
        ("length", 8, 8, False, "length"),
        ("length", 3, 8, False, "model_length"),
        ("length", 3, None, False, "model_length"),
        ("content_filter", 3, None, False, "error"),
        (None, 3, None, False, "error"),
    ],
)
def test_finish_reasons(reason: Any, tokens: int, asked: int | None, calls: bool, told: str) -> None:
    assert answer.finish(reason, {"completion_tokens": tokens}, asked, calls=calls) == told
