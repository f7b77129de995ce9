"""An OpenAI answer as Mistral's clients expect it, whole or as a stream. Pure.

Mistral's form of a stream differs in two ways that its SDK insists on: a tool call arrives in one piece with
its name and all its arguments, and the last chunk carries both the finish reasons and the usage.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from allod.errors import NotReady

OpenAI = dict[str, Any]

_ID = re.compile(r"[a-zA-Z0-9]{9}")
_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_FINISH = {"stop": "stop", "length": "length", "tool_calls": "tool_calls", "function_call": "tool_calls"}


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """What the request decides about its answer's form."""

    model: str
    created: int  # Unix seconds
    prefix: str = ""  # a stream begins with the assistant's prefix; engines stream only what follows it
    max_tokens: int | None = None


def tool_call_id(engine_id: str) -> str:
    """Nine characters of [a-zA-Z0-9], as mistral-common's validator asks; the same id for the same call."""
    if _ID.fullmatch(engine_id):
        return engine_id
    number = int.from_bytes(hashlib.sha256(engine_id.encode()).digest()[:8], "big")
    digits = []
    for _ in range(9):
        number, digit = divmod(number, len(_ALPHABET))
        digits.append(_ALPHABET[digit])
    return "".join(digits)


def whole(answer: OpenAI, shape: Shape) -> OpenAI:
    """A whole chat or text completion as a Mistral chat completion."""
    usage = answer.get("usage") or {}
    try:
        return {
            "id": str(answer.get("id") or "cmpl-allod"),
            "object": "chat.completion",
            "created": int(answer.get("created") or shape.created),
            "model": shape.model,
            "choices": [_choice(choice, usage, shape) for choice in answer["choices"]],
            "usage": _usage(usage),
        }
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise NotReady("upstream.malformed", "the engine's answer is not a chat completion") from error


def _choice(choice: OpenAI, usage: OpenAI, shape: Shape) -> OpenAI:
    message = choice.get("message")
    said = {"content": choice.get("text")} if message is None else message
    calls = [_whole_call(call, at) for at, call in enumerate(said.get("tool_calls") or [])]
    content = _content(_thought(said), said.get("content") or "")
    told: OpenAI = {"role": "assistant", "tool_calls": calls or None, "content": content, "prefix": False}
    translated: OpenAI = {
        "index": choice.get("index", 0),
        "message": told,
        "finish_reason": finish(choice.get("finish_reason"), usage, shape.max_tokens, calls=bool(calls)),
    }
    if choice.get("logprobs"):
        translated["logprobs"] = _logprobs(choice["logprobs"])
    return translated


def _thought(said: OpenAI) -> str:
    """Engines disagree on the field's name."""
    return said.get("reasoning_content") or said.get("reasoning") or ""


def _content(thought: str, said: str) -> str | list[OpenAI]:
    """Plain text, or a thinking chunk before the text."""
    if not thought:
        return said
    return [_think(thought), *([{"type": "text", "text": said}] if said else [])]


def _think(text: str) -> OpenAI:
    return {"type": "thinking", "thinking": [{"type": "text", "text": text}]}


def _whole_call(call: OpenAI, at: int) -> OpenAI:
    function = call["function"]
    return {
        "id": tool_call_id(str(call.get("id") or f"call-{at}")),
        "type": "function",
        "index": call.get("index", at),
        "function": {"name": function["name"], "arguments": function.get("arguments") or "{}"},
    }


def _logprobs(given: OpenAI) -> OpenAI | None:
    """Mistral's entries have a token id, which OpenAI's form does not carry: -1 stands for unknown."""
    content = given.get("content")
    if content is None:
        return None

    def entry(token: OpenAI) -> OpenAI:
        raw = token.get("bytes")
        return {
            "token": token["token"],
            "logprob": token["logprob"],
            "bytes": list(token["token"].encode()) if raw is None else raw,
            "token_id": token.get("id", -1),
        }

    return {
        "content": [
            {**entry(token), "top_logprobs": [entry(top) for top in token.get("top_logprobs") or []]}
            for token in content
        ]
    }


def finish(reason: Any, usage: OpenAI, max_tokens: int | None, *, calls: bool) -> str:
    """OpenAI's finish reason in Mistral's words: `model_length` where the context ended, not the request."""
    if calls and reason == "stop":
        return "tool_calls"
    if reason == "length" and usage:
        asked = max_tokens is not None and int(usage.get("completion_tokens") or 0) >= max_tokens
        return "length" if asked else "model_length"
    return _FINISH.get(str(reason), "error")


def _usage(usage: OpenAI) -> OpenAI:
    before, after = int(usage.get("prompt_tokens") or 0), int(usage.get("completion_tokens") or 0)
    told: OpenAI = {
        "prompt_tokens": before,
        "completion_tokens": after,
        "total_tokens": int(usage.get("total_tokens") or before + after),
    }
    cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens")
    return told if cached is None else told | {"prompt_tokens_details": {"cached_tokens": cached}}


class Reframer:
    """OpenAI chunks in, Mistral chunks out. `feed` each parsed event; `end` says what closes the stream."""

    def __init__(self, shape: Shape) -> None:
        self._shape = shape
        self._id = "cmpl-allod"
        self._usage: OpenAI = {}
        self._open: set[int] = set()  # choices that have begun
        self._calls: dict[int, dict[int, OpenAI]] = {}  # per choice, per call: fragments put together
        self._finished: dict[int, Any] = {}

    def feed(self, event: OpenAI) -> Iterator[OpenAI]:
        """Raises NotReady `upstream.malformed` (the event is no chunk) or `upstream.failed` (an error)."""
        if "error" in event:
            raise NotReady("upstream.failed", "the engine ended the stream with an error")
        try:
            self._id = str(event.get("id") or self._id)
            self._usage = event.get("usage") or self._usage
            for choice in event.get("choices") or []:
                yield from self._choice(choice)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise NotReady("upstream.malformed", "the engine's stream is not a chat completion") from error

    def end(self, *, complete: bool) -> OpenAI:
        """The last chunk: tool calls, finish reasons, usage. Not `complete`: reason `error`."""
        choices = []
        for at in sorted(self._open | set(self._finished)):
            calls = [self._call(at, n, call) for n, call in sorted(self._calls.get(at, {}).items())]
            delta: OpenAI = {"content": ""}
            if calls and complete:
                delta["tool_calls"] = calls
            reason = self._finished.get(at) if complete else None
            told = finish(reason, self._usage, self._shape.max_tokens, calls=bool(calls))
            choices.append({"index": at, "delta": delta, "finish_reason": told})
        if not choices and not complete:
            choices.append({"index": 0, "delta": {"content": ""}, "finish_reason": "error"})
        last = self._chunk(choices)
        last["usage"] = _usage(self._usage)
        return last

    def _choice(self, choice: OpenAI) -> Iterator[OpenAI]:
        at = int(choice.get("index", 0))
        delta = choice.get("delta")
        said = {"content": choice.get("text")} if delta is None else delta
        if at not in self._open:
            self._open.add(at)
            yield self._delta(at, {"role": "assistant", "content": self._shape.prefix})
        thinking = _thought(said)
        if thinking:
            yield self._delta(at, {"content": [_think(thinking)]})
        if said.get("content"):
            yield self._delta(at, {"content": said["content"]}, choice.get("logprobs"))
        for fragment in said.get("tool_calls") or []:
            self._gather(at, fragment)
        if choice.get("finish_reason") is not None:
            self._finished[at] = choice["finish_reason"]

    def _gather(self, at: int, fragment: OpenAI) -> None:
        calls = self._calls.setdefault(at, {})
        call = calls.setdefault(
            int(fragment.get("index", len(calls))), {"name": "", "arguments": "", "id": ""}
        )
        function = fragment.get("function") or {}
        call["id"] = fragment.get("id") or call["id"]
        call["name"] += function.get("name") or ""
        call["arguments"] += function.get("arguments") or ""

    def _call(self, choice: int, at: int, call: OpenAI) -> OpenAI:
        fallback = f"{self._id}/{choice}/{at}"
        function = {"name": call["name"], "arguments": call["arguments"]}
        return _whole_call({"id": call["id"] or fallback, "index": at, "function": function}, at)

    def _delta(self, at: int, delta: OpenAI, logprobs: OpenAI | None = None) -> OpenAI:
        choice: OpenAI = {"index": at, "delta": delta, "finish_reason": None}
        if logprobs:
            choice["logprobs"] = _logprobs(logprobs)
        return self._chunk([choice])

    def _chunk(self, choices: list[OpenAI]) -> OpenAI:
        return {
            "id": self._id,
            "object": "chat.completion.chunk",
            "created": self._shape.created,
            "model": self._shape.model,
            "choices": choices,
        }


def folded(chunks: Iterable[OpenAI]) -> OpenAI:
    """Mistral's chunks, the last one included, as the whole answer that says the same."""
    choices: dict[int, OpenAI] = {}
    last: OpenAI = {}
    for last in chunks:
        for choice in last["choices"]:
            fresh: OpenAI = {"thought": "", "said": "", "calls": None, "logprobs": []}
            held = choices.setdefault(choice["index"], fresh)
            content = choice["delta"]["content"]
            if isinstance(content, str):
                held["said"] += content
            else:
                held["thought"] += content[0]["thinking"][0]["text"]
            held["calls"] = choice["delta"].get("tool_calls") or held["calls"]
            held["logprobs"] += (choice.get("logprobs") or {}).get("content") or []
            held["finish_reason"] = choice["finish_reason"]
    return {
        **last,
        "object": "chat.completion",
        "choices": [_folded_choice(at, held) for at, held in sorted(choices.items())],
    }


def _folded_choice(at: int, held: OpenAI) -> OpenAI:
    content = _content(held["thought"], held["said"])
    message = {"role": "assistant", "tool_calls": held["calls"], "content": content, "prefix": False}
    choice: OpenAI = {"index": at, "message": message, "finish_reason": held["finish_reason"]}
    return choice | ({"logprobs": {"content": held["logprobs"]}} if held["logprobs"] else {})
