"""Edits of a request body that leave every other byte as the client wrote it.

Three edits exist: another name in `model` (an alias, a provider's own name),
`stream_options.include_usage`, so that a stream is always metered, and the service's system prompt as the
first of `messages`. They work on the JSON's structure, found by one scan over its tokens, never on text that
may stand inside a prompt. A top-level key that is given twice is refused: two readers could choose
differently, and one of them decides where the request may go.
"""

from __future__ import annotations

import re

import msgspec

from allod.front.body import Asked, StreamOptions
from allod.front.problems import Problem

_TOKEN = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|[{}\[\],:]', re.DOTALL)
_USAGE_ON = b'"stream_options":{"include_usage":true},'


def prepare(body: bytes, asked: Asked, upstream_model: str, system_prompt: str = "") -> tuple[bytes, bool]:
    """The bytes for the replica, and whether the stream's usage frame has to be taken out again.

    Raises Problem `body.repeated-key`, and `instructions.no-messages` where a system prompt has no place.
    """
    inject = bool(asked.stream) and not _includes_usage(asked)
    rename = asked.model != upstream_model
    first = body.find(b'"model"')
    plain = first >= 0 and body.rfind(b'"model"') == first  # one pass over the text, however long the prompt
    if plain and not rename and not system_prompt:
        if not inject:
            return body, False
        if asked.stream_options is msgspec.UNSET:
            brace = body.index(b"{") + 1
            return body[:brace] + _USAGE_ON + body[brace:], True
    spans = top_level(body)
    edits: list[tuple[int, int, bytes]] = []
    if rename:
        start, end = spans["model"]
        edits.append((start, end, msgspec.json.encode(upstream_model)))
    if system_prompt:
        edits.append(_instruct(body, spans, system_prompt))
    if inject:
        if "stream_options" in spans:
            start, end = spans["stream_options"]
            edits.append((start, end, _with_usage(body[start:end])))
        else:
            brace = body.index(b"{") + 1
            edits.append((brace, brace, _USAGE_ON))
    for start, end, new in sorted(edits, reverse=True):
        body = body[:start] + new + body[end:]
    return body, inject


def _includes_usage(asked: Asked) -> bool:
    options = asked.stream_options
    return isinstance(options, StreamOptions) and options.include_usage is True


def _instruct(body: bytes, spans: dict[str, tuple[int, int]], system_prompt: str) -> tuple[int, int, bytes]:
    """The edit that puts a system message before all others. What cannot carry one is not answered."""
    start, end = spans.get("messages", (0, 0))
    if body[start : start + 1] != b"[":
        raise Problem(
            400,
            "instructions.no-messages",
            "this model answers under instructions, which only a list of messages can carry",
            param="messages",
            hint="Send the request to /v1/chat/completions",
        )
    message = msgspec.json.encode({"role": "system", "content": system_prompt})
    first = start + 1
    more = bool(body[first : end - 1].strip(b" \t\r\n"))
    return first, first, message + b"," if more else message


def _with_usage(value: bytes) -> bytes:
    """The client's stream options (an object or null) with `include_usage` on."""
    options = msgspec.json.decode(value, type=dict[str, msgspec.Raw] | None) or {}
    options["include_usage"] = msgspec.Raw(b"true")
    return msgspec.json.encode(options)


def top_level(body: bytes) -> dict[str, tuple[int, int]]:
    """Where the value of each top-level key lies: key -> (start, end). `body` has been decoded as an object.

    Raises Problem `body.repeated-key` where a key occurs twice, also when spelled with escapes.
    """
    spans: dict[str, tuple[int, int]] = {}
    depth = 0
    key: str | None = None
    pending: bytes | None = None
    value_from = 0
    for token in _TOKEN.finditer(body):
        mark = body[token.start()]
        if mark == 0x22:  # a string
            if depth == 1 and key is None:
                pending = token[0]
        elif mark in b"{[":
            depth += 1
        elif mark == 0x3A:  # a colon
            if depth == 1 and pending is not None:
                key, pending, value_from = msgspec.json.decode(pending, type=str), None, token.end()
                if key in spans:
                    raise Problem(
                        400, "body.repeated-key", f"the key {key[:40]!r} is given twice", param=key[:40]
                    )
        elif depth == 1:  # a comma between members, or the closing brace
            if key is not None:
                spans[key] = _trim(body, value_from, token.start())
                key = None
            if mark == 0x7D:
                break
        elif mark in b"}]":
            depth -= 1
    return spans


def _trim(body: bytes, start: int, end: int) -> tuple[int, int]:
    while body[start] in b" \t\r\n":
        start += 1
    while body[end - 1] in b" \t\r\n":
        end -= 1
    return start, end
