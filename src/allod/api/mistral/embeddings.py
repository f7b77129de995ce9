"""Mistral's embeddings request and answer, to and from OpenAI's. Pure."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from allod.api.problems import Invalid, invalid
from allod.errors import NotReady


class EmbeddingRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    model: str
    input: str | list[str] | None = None
    inputs: str | list[str] | None = None  # an older name for the same field
    metadata: dict[str, Any] | None = None
    output_dimension: int | None = None
    output_dtype: Literal["float", "int8", "uint8", "binary", "ubinary"] = "float"
    encoding_format: Literal["float", "base64"] = "float"


def parse(value: Any) -> EmbeddingRequest:
    """Raises Invalid with the field's path."""
    try:
        wanted = msgspec.convert(value, EmbeddingRequest)
    except msgspec.ValidationError as error:
        raise invalid(error, value, EmbeddingRequest.__struct_fields__) from error
    if (wanted.input is None) == (wanted.inputs is None):
        kind = "missing" if wanted.input is None else "value_error"
        raise Invalid(kind, ("input",), "give the texts once, as `input`")
    if wanted.output_dtype != "float":
        raise Invalid(
            "value_error",
            ("output_dtype",),
            "embeddings are served as float only",
            value=wanted.output_dtype,
            hint="quantise the floats on your side",
        )
    if wanted.output_dimension is not None and wanted.output_dimension < 1:
        raise Invalid("value_error", ("output_dimension",), "a vector has at least one dimension")
    return wanted


def to_openai(wanted: EmbeddingRequest) -> dict[str, Any]:
    texts = wanted.input if wanted.input is not None else wanted.inputs
    body: dict[str, Any] = {"model": wanted.model, "input": texts, "encoding_format": wanted.encoding_format}
    if wanted.output_dimension is not None:
        body["dimensions"] = wanted.output_dimension
    return body


def from_openai(answer: dict[str, Any], wanted: EmbeddingRequest, fallback_id: str) -> dict[str, Any]:
    """Raises Invalid `output_dimension` where the engine did not shorten its vectors as asked."""
    try:
        data = [
            {"object": "embedding", "index": row.get("index", at), "embedding": row["embedding"]}
            for at, row in enumerate(answer["data"])
        ]
        usage = answer.get("usage") or {}
        tokens = int(usage.get("prompt_tokens") or 0)
        _checked(data, wanted)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise NotReady("upstream.malformed", "the engine's answer holds no embeddings") from error
    return {
        "id": str(answer.get("id") or fallback_id),
        "object": "list",
        "model": wanted.model,
        "data": data,
        "usage": {"prompt_tokens": tokens, "completion_tokens": 0, "total_tokens": tokens},
    }


def _checked(data: list[dict[str, Any]], wanted: EmbeddingRequest) -> None:
    for row in data:
        vector = row["embedding"]
        # base64 of little-endian float32: 4 bytes a dimension, 4 characters for 3 bytes
        size = len(vector.rstrip("=")) * 3 // 4 // 4 if isinstance(vector, str) else len(vector)
        if wanted.output_dimension is not None and size != wanted.output_dimension:
            raise Invalid(
                "value_error",
                ("output_dimension",),
                f"this model's vectors have {size} dimensions and cannot be shortened",
                value=wanted.output_dimension,
            )
