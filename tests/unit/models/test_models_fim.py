"""Gap filling: what a file says of its markers is what is used, and nothing is guessed."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from allod.errors import Unprocessable
from allod.models.fim import FimForm, of_gguf

VOCABULARY = ("<s>", "hello", "<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>", "[SUFFIX]", "[PREFIX]")


def _text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


def gguf(path: Path, ids: dict[str, int]) -> Path:
    """A GGUF file of a vocabulary and these numbers, and no tensors."""
    keys = [_text("general.architecture") + struct.pack("<I", 8) + _text("llama")]
    keys += [_text(name) + struct.pack("<II", 4, number) for name, number in ids.items()]
    tokens = b"".join(map(_text, VOCABULARY))
    keys.append(_text("tokenizer.ggml.tokens") + struct.pack("<IIQ", 9, 8, len(VOCABULARY)) + tokens)
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, len(keys)) + b"".join(keys) + b"\0" * 64)
    return path


def _ids(**parts: int) -> dict[str, int]:
    return {f"tokenizer.ggml.fim_{part}_token_id": number for part, number in parts.items()}


def test_a_model_with_three_markers_reads_prefix_suffix_middle(tmp_path: Path) -> None:
    found = of_gguf(gguf(tmp_path / "m.gguf", _ids(pre=2, suf=3, mid=4)))
    assert found == FimForm(prefix="<|fim_prefix|>", suffix="<|fim_suffix|>", middle="<|fim_middle|>")


def test_a_model_with_two_markers_reads_the_suffix_first(tmp_path: Path) -> None:
    before = {"tokenizer.ggml.prefix_token_id": 6, "tokenizer.ggml.suffix_token_id": 5}
    found = of_gguf(gguf(tmp_path / "m.gguf", before))
    assert found == FimForm(prefix="[PREFIX]", suffix="[SUFFIX]", suffix_first=True)


@pytest.mark.parametrize("ids", [{}, _ids(pre=2), _ids(pre=2, suf=999), _ids(mid=4)])
def test_a_model_without_its_markers_fills_no_gaps(tmp_path: Path, ids: dict[str, int]) -> None:
    assert of_gguf(gguf(tmp_path / "m.gguf", ids)) is None


def test_a_file_cut_inside_its_vocabulary_is_refused(tmp_path: Path) -> None:
    path = gguf(tmp_path / "m.gguf", _ids(pre=2, suf=3))
    path.write_bytes(path.read_bytes()[:-90])
    with pytest.raises(Unprocessable, match="ends inside"):
        of_gguf(path)
