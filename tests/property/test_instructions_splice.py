"""A system prompt joins any conversation, however its JSON is written, and changes nothing else of it."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from allod.front import body as bodies
from allod.front import splice
from allod.front.problems import Problem

texts = st.text(max_size=12) | st.sampled_from(['{"messages":[', "]}", '\\"', "\u2028", "😀", "\n"])
messages = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["system", "user", "assistant"]), "content": texts})
    | st.fixed_dictionaries({"role": st.just("user"), "content": st.lists(st.just({"a": 1}), max_size=2)}),
    max_size=3,
)  # fmt: skip
spaces = st.text(" \t\r\n", max_size=2)


def _prepare(raw: bytes, prompt: str, upstream: str = "m") -> bytes:
    return splice.prepare(raw, bodies.read(raw, b"application/json"), upstream, prompt)[0]


@settings(max_examples=300, deadline=None)
@given(
    conversation=messages,
    prompt=texts.filter(bool),
    extra=st.dictionaries(texts.filter(lambda k: k not in {"model", "messages"}), texts, max_size=2),
    options=st.sampled_from([{}, {"stream": True}, {"stream": True, "stream_options": {}}]),
    upstream=st.sampled_from(["m", 'other "m"']),
    data=st.data(),
)
def test_only_the_first_message_is_new(
    conversation: list[Any],
    prompt: str,
    extra: dict[str, str],
    options: dict[str, Any],
    upstream: str,
    data: st.DataObject,
) -> None:
    extra = {k: v for k, v in extra.items() if not hasattr(bodies.Asked, k)}
    asked = dict(
        data.draw(
            st.permutations([*extra.items(), *options.items(), ("model", "m"), ("messages", conversation)])
        )
    )
    comma, colon = (f"{data.draw(spaces)}{mark}{data.draw(spaces)}" for mark in ",:")
    text = json.dumps(
        asked,
        ensure_ascii=data.draw(st.booleans()),
        indent=data.draw(st.sampled_from([None, 0, 3])),
        separators=(comma, colon),
    )
    empty = data.draw(spaces)
    if not conversation:  # an empty list may hold white space
        text = re.sub(r'("messages"\s*:\s*)\[\]', lambda m: f"{m[1]}[{empty}]", text, count=1)
    raw = text.encode("utf-8", "surrogatepass")
    got = json.loads(_prepare(raw, prompt, upstream))

    assert got["messages"] == [{"role": "system", "content": prompt}, *conversation]
    got.pop("stream_options", None)
    expected = {**asked, "messages": got["messages"], "model": upstream}
    expected.pop("stream_options", None)
    assert got == expected


def test_without_a_prompt_the_bytes_are_the_clients() -> None:
    raw = b'{ "model":"m" , "messages" : [ ] }'
    assert _prepare(raw, "") is raw


@pytest.mark.parametrize(
    "raw", [b'{"model":"m","prompt":"x"}', b'{"model":"m","messages":"x"}', b'{"model":"m","messages":null}']
)
def test_what_cannot_carry_instructions_is_not_answered_without_them(raw: bytes) -> None:
    with pytest.raises(Problem, match=r"instructions") as caught:
        _prepare(raw, "Be brief.")
    assert (caught.value.status, caught.value.code) == (400, "instructions.no-messages")


def test_a_second_list_of_messages_cannot_hide_behind_the_first() -> None:
    with pytest.raises(Problem, match="twice"):
        _prepare(b'{"messages":[],"model":"m","mess\\u0061ges":[{"role":"user"}]}', "Be brief.")
