"""Models: only what a manifest names, byte for byte, in formats that cannot run code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from model_files import gguf

from allod import digest
from allod.errors import Integrity, NotFound, Unprocessable, Usage
from allod.models import store
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


def test_a_model_that_cannot_be_read_hides_no_other(models: Path, tmp_path: Path) -> None:
    (tmp_path / "other.gguf").write_bytes(gguf(16))
    add(tmp_path / "other.gguf", "a-first", models, aliases=("x",))
    (store.find(models, "a-first")[0] / "model.json").write_text("{")
    assert store.find(models, "m1")[1].name == store.find(models, "m")[1].name == "m1"
    with pytest.raises(Unprocessable):
        store.find(models, "a-first")
    with pytest.raises(Unprocessable):
        store.installed(models)


def test_a_manifest_reads_back_as_it_was_written(models: Path) -> None:
    model = store.find(models, "m1")[1]
    assert msgspec.json.decode(msgspec.json.encode(model), type=ModelManifest) == model
