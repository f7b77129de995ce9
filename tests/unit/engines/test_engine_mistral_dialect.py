"""OpenAI's dialect to Mistral's: nothing is lost silently."""

from __future__ import annotations

import pytest

from allod.engines.provider import mistral
from allod.errors import Usage


def test_tool_call_ids_stay_paired_and_become_mistrals() -> None:
    long = "call_0123456789abcdef"
    sent = mistral.request(
        {
            "messages": [
                {"role": "developer", "content": "be brief"},
                {
                    "role": "assistant",
                    "content": None,
                    "tool_calls": [{"id": long, "function": {"name": "f"}}],
                },
                {"role": "tool", "tool_call_id": long, "content": "x"},
            ]
        }
    )["messages"]
    assert sent[0]["role"] == "system"
    assert sent[1]["content"] == ""
    assert sent[1]["tool_calls"][0]["id"] == sent[2]["tool_call_id"]
    assert len(sent[2]["tool_call_id"]) == 9
    assert mistral.request({"messages": [{"role": "tool", "tool_call_id": "abc123XYZ"}]})["messages"][0][
        "tool_call_id"
    ] == "abc123XYZ"  # fmt: skip


@pytest.mark.parametrize("field", ["logit_bias", "functions", "modalities"])
def test_what_would_change_the_answer_is_refused_by_name(field: str) -> None:
    with pytest.raises(Usage, match=field):
        mistral.request({"messages": [], field: {"a": 1}})


def test_transport_fields_are_dropped_and_unknown_ones_pass() -> None:
    sent = mistral.request({"model": "m", "stream_options": {}, "user": "u", "seed": 1, "safe_prompt": True})
    assert sent == {"model": "m", "random_seed": 1, "safe_prompt": True}


def test_thinking_is_told_apart_from_the_answer() -> None:
    content = [
        {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]},
        {"type": "text", "text": "yes"},
    ]
    choice = mistral.answer({"choices": [{"delta": {"content": content}, "finish_reason": "error"}]})[
        "choices"
    ][0]
    assert choice["delta"] == {"content": "yes", "reasoning_content": "hm"}
    assert choice["finish_reason"] == "stop"


def test_answers_without_choices_pass_unchanged() -> None:
    assert mistral.answer({"data": [1]}) == {"data": [1]}
