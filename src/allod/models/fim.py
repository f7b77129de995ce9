"""How a model fills a gap between two pieces of text, read from its own file.

A model that was not trained for it has no marker tokens, and `of_gguf` says None: nothing is guessed from a
name. Which side of the gap is read first follows from the markers: a family with a marker for the middle
reads prefix, suffix, middle; one without (Mistral's code models) reads the suffix first and goes on after the
prefix. Source of the keys: the GGUF specification's `tokenizer.ggml.*` and llama.cpp's names for gap tokens.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from allod.models import gguf_header

_TOKENS = "tokenizer.ggml.tokens"
_KEYS = {part: f"tokenizer.ggml.fim_{part}_token_id" for part in ("pre", "suf", "mid")}
_BEFORE = {  # names used by files made before the ones above
    "pre": "tokenizer.ggml.prefix_token_id",
    "suf": "tokenizer.ggml.suffix_token_id",
    "mid": "tokenizer.ggml.middle_token_id",
}


class FimForm(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a model was trained to fill a gap: its marker tokens, and which side of the gap it reads first."""

    prefix: str  # e.g. "<|fim_prefix|>", "[PREFIX]"
    suffix: str
    middle: str = ""  # empty where the answer simply follows the second part
    suffix_first: bool = False


def of_gguf(path: Path) -> FimForm | None:
    """The gap markers of a GGUF file; None where it has none. Raises Unprocessable, and OSError as `open`."""
    scalars = gguf_header.read(path).scalars
    ids = {part: scalars.get(key, scalars.get(_BEFORE[part])) for part, key in _KEYS.items()}
    wanted = {part: id_ for part, id_ in ids.items() if isinstance(id_, int)}
    if not {"pre", "suf"} <= wanted.keys():
        return None
    texts = gguf_header.array_texts(path, _TOKENS, frozenset(wanted.values()))
    prefix, suffix = texts.get(wanted["pre"], ""), texts.get(wanted["suf"], "")
    middle = texts.get(wanted["mid"], "") if "mid" in wanted else ""
    if not prefix or not suffix:
        return None
    return FimForm(prefix=prefix, suffix=suffix, middle=middle, suffix_first=not middle)
