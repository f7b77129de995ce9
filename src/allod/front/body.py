"""What is read of a request body: the few fields the path needs, and nothing of the content.

One partial decode; messages, prompts and documents are skipped over, never materialised. Values that end in
a receipt are numbers only, so that no text of the content can reach the ledger in the clear.
"""

from __future__ import annotations

import re

import msgspec

from allod.front.problems import Problem

Number = int | float


class StreamOptions(msgspec.Struct, frozen=True):
    include_usage: bool | None = None


class Asked(msgspec.Struct, frozen=True):
    """The decoded part of a body. `stream_options` tells apart absent (UNSET) and null."""

    model: str
    stream: bool | None = None
    stream_options: StreamOptions | msgspec.UnsetType | None = msgspec.UNSET
    max_tokens: Number | None = None
    max_completion_tokens: Number | None = None
    temperature: Number | None = None
    top_p: Number | None = None
    seed: Number | None = None
    random_seed: Number | None = None
    n: Number | None = None


_DECODER = msgspec.json.Decoder(Asked)
_FIELD = re.compile(r"at `\$\.([a-z_]+)")
_JSON_TYPES = (b"application/json", b"text/json")


def read(body: bytes, content_type: bytes) -> Asked:
    """Raises Problem: 415 for another content type, 400 for what is not a JSON object with a model."""
    if content_type != b"application/json":
        _check_type(content_type)
    if not body:
        raise Problem(400, "body.empty", "the request has no body", hint="Send a JSON object with a model")
    try:
        if not body.isascii():
            str(body, "utf-8")  # skipped strings are not decoded below, so their bytes are checked here
        return _DECODER.decode(body)
    except UnicodeDecodeError as e:
        raise Problem(400, "body.not-utf8", f"the body is not UTF-8 at byte {e.start}") from e
    except msgspec.ValidationError as e:
        field = _FIELD.search(str(e))
        missing = "required field `model`" in str(e)
        param = "model" if missing else field[1] if field else None
        raise Problem(
            400,
            "body.model-missing" if missing else "body.invalid-field",
            "the body names no model" if missing else f"a field of the body is not acceptable: {e}",
            param=param,
            hint="GET /v1/models lists the models" if missing else "",
        ) from e
    except (msgspec.DecodeError, RecursionError) as e:
        raise Problem(400, "body.not-json", f"the body is not valid JSON: {e}") from e


def _check_type(content_type: bytes) -> None:
    kind = content_type.partition(b";")[0].strip().lower()
    if kind not in _JSON_TYPES and not kind.endswith(b"+json"):
        raise Problem(
            415,
            "body.content-type",
            f"this route reads application/json, not {kind.decode('latin-1')[:60] or 'an unnamed type'}",
            hint="Send the header Content-Type: application/json",
        )


def sampling(asked: Asked) -> dict[str, str]:
    """The sampling parameters as text, in the order of their names. A seed that was not given stays empty."""
    out: dict[str, str] = {}
    limit = asked.max_completion_tokens if asked.max_completion_tokens is not None else asked.max_tokens
    if limit is not None:
        out["max_tokens"] = str(limit)
    if asked.n is not None:
        out["n"] = str(asked.n)
    seed = asked.seed if asked.seed is not None else asked.random_seed
    out["seed"] = "" if seed is None else str(seed)
    if asked.temperature is not None:
        out["temperature"] = str(asked.temperature)
    if asked.top_p is not None:
        out["top_p"] = str(asked.top_p)
    return out
