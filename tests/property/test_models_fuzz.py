"""Whatever bytes a model file is made of, it is admitted or refused: never a crash, never unbounded work."""

from __future__ import annotations

import json
import struct
import time
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from model_files import gguf, safetensors

from allod.errors import TooLarge, Unprocessable
from allod.models import onnx, templates
from allod.models.admission import Examination
from allod.models.licence import of_card, spdx
from allod.models.safetensors import header
from allod.models.sources.artefact import files_of

_ONNX = b"\x08\x08" + b"\x3a\x16" + b"\x2a\x0c" + b"\x42\x01w\x4a\x07" + b"\0" * 7 + b"\x12\x06graph!"
WHOLE = {"m.gguf": gguf(general__license="mit"), "m.safetensors": safetensors(), "m.onnx": _ONNX}
EDITS = st.lists(st.tuples(st.integers(0, 1 << 16), st.integers(0, 255)), max_size=8)


def admitted(path: Path, raw: bytes) -> bool:
    path.write_bytes(raw)
    began = time.monotonic()
    try:
        exam = Examination()
        exam.add(path.name, path)
        exam.findings()
        return True
    except (Unprocessable, TooLarge) as e:
        assert e.code.startswith("model.")  # noqa: PT017
        return False
    finally:
        assert time.monotonic() - began < 5


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


@pytest.mark.parametrize("name", WHOLE)
def test_the_whole_is_admitted_and_no_truncation_is(folder: Path, name: str) -> None:
    whole = WHOLE[name]
    assert admitted(folder / name, whole)
    for length in range(len(whole)):
        assert not admitted(folder / name, whole[:length]), length


@pytest.mark.parametrize("name", WHOLE)
@settings(max_examples=150, deadline=None)
@given(edits=EDITS, tail=st.binary(max_size=30))
def test_no_changed_byte_does_more_than_refuse(
    folder: Path, name: str, edits: list[tuple[int, int]], tail: bytes
) -> None:
    raw = bytearray(WHOLE[name] + tail)
    for at, value in edits:
        raw[at % len(raw)] = value
    admitted(folder / name, bytes(raw))


NUMBERS = st.one_of(st.integers(-5, 300), st.sampled_from([2**31, 2**63 - 1, 2**63, 2**64 - 1]))


@settings(max_examples=200, deadline=None)
@given(
    entries=st.dictionaries(
        st.text(max_size=5),
        st.fixed_dictionaries(
            {
                "dtype": st.sampled_from(["F32", "BF16", "F4", "I64", "X", ""]),
                "shape": st.lists(NUMBERS, max_size=3),
                "data_offsets": st.lists(NUMBERS, min_size=1, max_size=3),
            }
        ),
        max_size=4,
    ),
    data=st.integers(0, 300),
)
@example(entries={"a": {"dtype": "F32", "shape": [2**62, 4], "data_offsets": [0, 0]}}, data=0)
def test_no_safetensors_header_reaches_outside_its_file(
    folder: Path, entries: dict[str, dict[str, object]], data: int
) -> None:
    head = json.dumps(entries).encode()
    path = folder / "h.safetensors"
    path.write_bytes(struct.pack("<Q", len(head)) + head + b"\0" * data)
    try:
        found = header(path)
    except Unprocessable as e:
        assert e.code == "model.safetensors-malformed"  # noqa: PT017
        return
    covered = sorted(entry.data_offsets for entry in found.tensors.values())
    assert sum(end - begin for begin, end in covered) == data


@settings(max_examples=200, deadline=None)
@given(raw=st.binary(max_size=200))
def test_no_bytes_confuse_the_readers_of_small_things(folder: Path, raw: bytes) -> None:
    card = folder / "README.md"
    card.write_bytes(b"---\n" + raw)
    assert of_card(card)
    assert spdx(raw.decode("latin-1"))
    path = folder / "x.onnx"
    path.write_bytes(raw)
    for read in (lambda: onnx.check(path), lambda: files_of(raw)):
        try:
            read()
        except Unprocessable as e:
            assert e.code in ("model.onnx-malformed", "model.onnx-external", "source.bad-manifest")  # noqa: PT017


_PARTS = st.sampled_from(
    ["{{", "}}", "{%", "%}", "__class__", "messages", ".", "[", "]", "'", "|", "attr", "(", ")", "for ", "x",
     " in ", "endfor", "if ", "endif", "range(9)", " ", "+", "set ", "=", "namespace()", "\n"]
)  # fmt: skip


@settings(max_examples=12, deadline=None)
@given(parts=st.lists(_PARTS, max_size=12))
def test_no_template_does_more_than_be_refused(parts: list[str]) -> None:
    try:
        templates.check("t", "".join(parts))
    except (Unprocessable, TooLarge) as e:
        assert e.code.startswith("model.template-")  # noqa: PT017
