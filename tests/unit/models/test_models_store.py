"""Models: only what a manifest names, byte for byte, in formats that cannot run code."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from model_files import gguf

from allod import digest
from allod.errors import AllodError, Integrity, NotFound, Unprocessable, Usage
from allod.models import gguf_header, safetensors, store
from allod.models.manifest import ModelManifest, check, files_digest
from allod.models.pull import Pulled, Rules, Wanted, pull
from allod.models.sources.folder import Folder


def add(path: Path, name: str, models: Path, **said: Any) -> Pulled:
    return pull(models, Folder(path), Wanted(name=name, **said), Rules())


@pytest.fixture
def models(tmp_path: Path) -> Path:
    (tmp_path / "file.gguf").write_bytes(gguf())
    add(tmp_path / "file.gguf", "m1", tmp_path / "models", licence="Apache-2.0", aliases=("m",))
    return tmp_path / "models"


def test_a_file_is_registered_with_what_its_header_says(models: Path) -> None:
    folder, model = store.find(models, "m")
    assert (model.name, model.kind, model.quantisation, model.context_tokens) == ("m1", "chat", "q8_0", 2048)
    assert model.files == {"file.gguf": digest.of(gguf())}
    assert store.verify(folder) == model
    assert store.ls(models) == [model]


def test_one_changed_byte_is_named(models: Path) -> None:
    folder = store.find(models, "m1")[0]
    weights = folder / "file.gguf"
    raw = bytearray(weights.read_bytes())
    raw[-1] ^= 1
    weights.unlink()
    weights.write_bytes(raw)
    with pytest.raises(Integrity, match=r"file\.gguf") as e:
        store.verify(folder)
    assert e.value.code == "model.changed"


def test_a_missing_and_an_added_file_are_named(models: Path) -> None:
    folder = store.find(models, "m1")[0]
    for extra in ("extra.safetensors", "notes.txt", "tokenizer.json"):
        (folder / extra).write_bytes(b"")
        with pytest.raises(Integrity, match=extra) as e:
            store.verify(folder)
        assert e.value.code == "model.unlisted"
        (folder / extra).unlink()
    (folder / "file.gguf").unlink()
    with pytest.raises(Integrity, match="is gone"):
        store.verify(folder)


def test_a_manifest_cannot_reach_outside_or_lie_about_its_digest(models: Path) -> None:
    folder, model = store.find(models, "m1")
    files = {"../../etc/x.gguf": "sha256:" + "0" * 64}
    with pytest.raises(Unprocessable, match="plain file name"):
        check(msgspec.structs.replace(model, files=files, digest=files_digest(files)))
    with pytest.raises(Unprocessable, match="digest"):
        check(msgspec.structs.replace(model, digest="sha256:" + "1" * 64))
    (folder / "model.json").write_text("{}")
    with pytest.raises(Unprocessable):
        store.load(folder)


@pytest.mark.parametrize("name", ["model.bin", "model.pt", "pytorch_model.pth", "x.pkl", "x.ckpt"])
def test_pickles_are_refused_by_name(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(gguf())
    with pytest.raises(Unprocessable) as e:
        add(tmp_path / name, "m", tmp_path / "models")
    assert e.value.code == "model.pickle"


@pytest.mark.parametrize("name", ["../m", "UPPER", "a b", "x" * 65])
def test_names_are_checked(tmp_path: Path, name: str) -> None:
    (tmp_path / "f.gguf").write_bytes(gguf())
    with pytest.raises(Unprocessable, match="no model name"):
        add(tmp_path / "f.gguf", name, tmp_path / "models")
    assert store.ls(tmp_path / "models") == []


def test_a_name_is_taken_once(models: Path, tmp_path: Path) -> None:
    add(tmp_path / "file.gguf", "m1", models)  # the same again
    (tmp_path / "other.gguf").write_bytes(gguf(16))
    with pytest.raises(Usage, match="another model"):
        add(tmp_path / "other.gguf", "m1", models)
    assert store.find(models, "m1")[1].files == {"file.gguf": digest.of(gguf())}
    add(tmp_path / "other.gguf", "m2", models)
    assert [m.name for m in store.ls(models)] == ["m1", "m2"]


def test_the_nearest_name_is_offered(models: Path) -> None:
    with pytest.raises(NotFound, match="did you mean 'm1'"):
        store.find(models, "m11")


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    whole, path = gguf(), tmp_path / "x.gguf"
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(Unprocessable):
            gguf_header.read(path)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=6), st.binary(max_size=40))
def test_no_malformed_header_does_more_than_be_refused(
    tmp_path_factory: pytest.TempPathFactory, edits: list[tuple[int, int]], tail: bytes
) -> None:
    raw = bytearray(gguf() + tail)
    for at, value in edits:
        raw[at % len(raw)] = value
    path = tmp_path_factory.getbasetemp() / "fuzz.gguf"
    path.write_bytes(raw)
    try:
        header = gguf_header.read(path)
        assert header.data_end <= len(raw)
        assert header.context_tokens is None or isinstance(header.context_tokens, int)
        assert isinstance(header.quantisation, str)
    except AllodError as e:
        assert e.code == "model.gguf-malformed"  # noqa: PT017


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=60))
def test_no_malformed_safetensors_does_more_than_be_refused(
    tmp_path_factory: pytest.TempPathFactory, tail: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzz.safetensors"
    header = b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'
    for raw in (tail, struct.pack("<Q", len(header)) + header + tail[:12]):
        path.write_bytes(raw)
        try:
            assert all(v.size for v in safetensors.read(path).values())
        except AllodError as e:
            assert e.code == "model.safetensors-malformed"  # noqa: PT017


def test_a_manifest_reads_back_as_it_was_written(models: Path) -> None:
    model = store.find(models, "m1")[1]
    assert msgspec.json.decode(msgspec.json.encode(model), type=ModelManifest) == model
