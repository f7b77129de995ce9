"""Edits of a request body that leave every other byte as the client wrote it.

Three edits exist: another name in `model` (an alias, a provider's own name),
`stream_options.include_usage`, so that a stream is always metered, and the service's system prompt as the
first of `messages`. They work on the JSON's structure, never on text that may stand inside a prompt.

`model` given twice is refused, however it is spelled: two readers could choose differently, and one of them
decides where the request may go. In a body that is edited that goes for every top-level key.
"""

from __future__ import annotations

import re

import msgspec

from allod import limits
from allod.front.body import Asked, StreamOptions
from allod.front.problems import Problem

_KEY = re.compile(rb'[ \t\r\n]*+("[^"\\]*+(?:\\.[^"\\]*+)*+")[ \t\r\n]*+:[ \t\r\n]*+', re.DOTALL)
_NEXT = re.compile(rb"[ \t\r\n]*+([,}])")
_MEMBERS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_USAGE_ON = b'"stream_options":{"include_usage":true},'


def prepare(body: bytes, asked: Asked, upstream_model: str, system_prompt: str = "") -> tuple[bytes, bool]:
    """The bytes for the replica, and whether the stream's usage frame has to be taken out again.

    Raises Problem `body.repeated-key`, and `instructions.no-messages` where a system prompt has no place.
    """
    inject = bool(asked.stream) and not _includes_usage(asked)
    rename = asked.model != upstream_model
    if not rename and not system_prompt and _plain(body):
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


def _plain(body: bytes) -> bool:
    """Whether `model`, by which is decided, is there once. A pass over the text, however long the prompt.

    Nobody spells a letter of a key as an escape, except to hide it from one of two readers.
    """
    first = body.find(b'"model"')
    if first < 0 or body.rfind(b'"model"') != first:
        return False
    return b"\\" not in body or (b"\\u006" not in body and b"\\u007" not in body)


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

    Raises Problem `body.repeated-key` where a key occurs twice, also when spelled with escapes, and
    `body.too-many-keys`. The decoder finds the ends of the values: what lies inside them costs no time here.
    """
    members: dict[str, msgspec.Raw] = {}
    if body.count(b":") <= limits.BODY_COLONS_MAX:  # there are no more keys than colons
        members = _MEMBERS.decode(body)  # of a repeated key the last value, which then fits at one place only
    if not 0 < len(members) <= limits.BODY_KEYS_MAX:
        raise Problem(
            400,
            "body.too-many-keys",
            f"a body that has to be edited has at most {limits.BODY_KEYS_MAX} keys and"
            f" {limits.BODY_COLONS_MAX} colons",
            hint="Name the model as GET /v1/models does, without an alias",
        )
    spans: dict[str, tuple[int, int]] = {}
    at = body.index(b"{") + 1
    while (found := _KEY.match(body, at)) is not None:
        key = str(msgspec.json.decode(found[1], type=str))
        value = bytes(members[key])
        end = found.end() + len(value)
        after = _NEXT.match(body, end)
        if key in spans or after is None or not body.startswith(value, found.end()):
            raise Problem(400, "body.repeated-key", f"the key {key[:40]!r} is given twice", param=key[:40])
        spans[key] = (found.end(), end)
        at = after.end()
        if after[1] == b"}":
            break
    return spans
