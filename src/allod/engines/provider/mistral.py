"""OpenAI's chat and embeddings dialect to Mistral's, and the answers back. Pure functions over decoded JSON.

Fields that only steer transport or bookkeeping are dropped; one that would change the answer and that Mistral
has not is refused, never dropped. Everything unknown passes: Mistral answers for it itself.
Source: Mistral's API reference and the request models of its Python SDK 3.7.
"""

from __future__ import annotations

import hashlib
import re
from typing import Any

import msgspec

from allod.errors import Usage

Json = dict[str, Any]

_RENAMED = {"seed": "random_seed", "max_completion_tokens": "max_tokens", "dimensions": "output_dimension"}
_DROPPED = (
    "stream_options",  # Mistral always sends usage
    "store",
    "user",
    "safety_identifier",
    "verbosity",
)
_REFUSED = ("logit_bias", "functions", "function_call", "audio", "modalities", "web_search_options")
_TOOL_CALL_ID = re.compile(r"[a-zA-Z0-9]{9}")
_FINISH = {"model_length": "length", "error": "stop"}


def request(body: Json) -> Json:
    """A request as Mistral takes it. Raises Usage `provider.unsupported`, naming the field."""
    for field in _REFUSED:
        if body.get(field):
            raise Usage(
                "provider.unsupported", f"this provider has no {field!r}", hint=f"leave {field!r} out"
            )
    out = {_RENAMED.get(k, k): v for k, v in body.items() if k not in (*_DROPPED, *_REFUSED)}
    if out.get("tool_choice") == "required":
        out["tool_choice"] = "any"
    if isinstance(out.get("messages"), list):
        out["messages"] = [_message(m) if isinstance(m, dict) else m for m in out["messages"]]
    return out


def _message(message: Json) -> Json:
    out = dict(message)
    if out.get("role") == "developer":
        out["role"] = "system"
    if "tool_call_id" in out:
        out["tool_call_id"] = _short_id(out["tool_call_id"])
    if out.get("tool_calls"):
        out["tool_calls"] = [
            call | {"id": _short_id(call.get("id"))} if isinstance(call, dict) else call
            for call in out["tool_calls"]
        ]
        out["content"] = out.get("content") or ""
    return out


def _short_id(id: Any) -> Any:
    """Mistral takes tool call ids of nine letters and digits; others, from an earlier answer of another
    engine, become nine that are the same each time.
    """
    if not isinstance(id, str) or _TOOL_CALL_ID.fullmatch(id):
        return id
    return hashlib.sha256(id.encode()).hexdigest()[:9]


def answer(body: Json) -> Json:
    """A chat completion, or one chunk of a stream, as OpenAI's clients read it; other answers unchanged."""
    choices = body.get("choices")
    if not isinstance(choices, list):
        return body
    return body | {"choices": [_choice(c) if isinstance(c, dict) else c for c in choices]}


def _choice(choice: Json) -> Json:
    out = dict(choice)
    out["finish_reason"] = _FINISH.get(str(out.get("finish_reason")), out.get("finish_reason"))
    for key in ("message", "delta"):
        if isinstance(out.get(key), dict):
            out[key] = _spoken(out[key])
    return out


def _spoken(message: Json) -> Json:
    out = dict(message)
    if isinstance(out.get("content"), list):
        parts = [p for p in out["content"] if isinstance(p, dict)]
        thoughts = [t for p in parts if p.get("type") == "thinking" for t in p.get("thinking", [])]
        out["content"] = _text(parts)
        if thoughts:
            out["reasoning_content"] = _text(thoughts)
    if out.get("tool_calls"):
        out["tool_calls"] = [_call(i, c) for i, c in enumerate(out["tool_calls"])]
    return out


def _text(parts: list[Json]) -> str:
    return "".join(str(p.get("text", "")) for p in parts if p.get("type") == "text")


def _call(position: int, call: Json) -> Json:
    function = dict(call.get("function") or {})
    if not isinstance(function.get("arguments", ""), str):
        function["arguments"] = msgspec.json.encode(function["arguments"]).decode()
    return {"index": position} | call | {"type": "function", "function": function}
