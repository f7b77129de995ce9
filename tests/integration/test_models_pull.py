"""Pulling from a hub, a registry, a layout and folders: over real HTTP, killed, lied to, and twice."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf as gguf_library
import huggingface_hub
import msgspec
import oras.provider
import pytest
import safetensors.numpy
from hub import TOKEN
from model_files import COMMIT, Served, gguf, model_folder, repository, serving
from model_files import safetensors as tensors

from allod import digest, limits
from allod.errors import AllodError, Denied, Integrity, NotFound, NotReady, Usage
from allod.models import blobs, pull, push, sources, store
from allod.models.pull import Pulled, Rules, Wanted
from allod.models.sources import Access

MIB = 1 << 20


@pytest.fixture
def models(tmp_path: Path) -> Path:
    return tmp_path / "home" / "models"


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Served]:
    repository(tmp_path / "hub", floats=8 * MIB // 4)
    with serving("hub", tmp_path / "hub") as served:
        yield served


def pull_from(
    models: Path, source: str, access: Access | None = None, rules: Rules | None = None, **wanted: Any
) -> Pulled:
    return pull.pull(models, sources.open_source(source, access), Wanted(**wanted), rules or Rules())


def on(served: Served, token: str = "") -> Access:
    return Access(endpoint=served.address, token=token)


# --- the hub ------------------------------------------------------------------------------------------------


def test_a_repository_becomes_a_model_pinned_to_its_commit(tmp_path: Path, models: Path, hub: Served) -> None:
    pulled = pull_from(models, "hf:acme/tiny", on(hub))
    m = pulled.manifest
    assert (m.name, m.kind, m.format, m.licence, m.quantisation, m.context_tokens) == (
        "tiny", "chat", "safetensors", "Apache-2.0", "bf16", 4096
    )  # fmt: skip
    assert m.origin.source == f"hf:acme/tiny@{COMMIT}"
    source = tmp_path / "hub" / "acme/tiny" / COMMIT
    assert m.files == {p.name: digest.of_file(p) for p in source.iterdir()}
    assert store.verify(store.find(models, "tiny")[0]) == m
    assert store.find(models, f"tiny@{m.digest}")[1] == m
    assert all(line["agent"].startswith("allod") or "allod" in line["agent"] for line in hub.asked())
    assert {line["path"].split("?")[0] for line in hub.asked()} <= {
        f"/api/models/acme/tiny{end}" for end in ("", "/revision/main")
    } | {f"/acme/tiny/resolve/{COMMIT}/{name}" for name in m.files} | {
        f"/cdn/acme/tiny/{COMMIT}/model.safetensors"
    }, "nothing else is asked"


def test_a_second_pull_moves_no_bytes(models: Path, hub: Served) -> None:
    first = pull_from(models, "hf:acme/tiny", on(hub))
    assert first.moved == sum((first.folder / name).stat().st_size for name in first.manifest.files)
    hub.forget()
    again = pull_from(models, "hf:acme/tiny", on(hub))
    assert (again.moved, hub.sent) == (0, 0)
    assert again.manifest == first.manifest
    other = pull_from(models, "hf:acme/tiny", on(hub), name="other", tag="v1")
    assert (other.moved, hub.sent) == (0, 0)
    inodes = {(p.folder / "model.safetensors").stat().st_ino for p in (first, other)}
    assert len(inodes) == 1, "one content lies on the disk once"


def test_what_is_stored_is_read_back_by_those_who_made_the_formats(
    tmp_path: Path, models: Path, hub: Served
) -> None:
    folder = pull_from(models, "hf:acme/tiny", on(hub)).folder
    arrays = safetensors.numpy.load_file(folder / "model.safetensors")
    assert arrays["w"].shape == (8 * MIB // 4,)
    raw = huggingface_hub.hf_hub_download(
        "acme/tiny", "model.safetensors", endpoint=hub.address, cache_dir=tmp_path / "cache", token=False
    )
    assert digest.of_file(Path(raw)) == digest.of_file(folder / "model.safetensors")
    card = huggingface_hub.ModelCard.load(folder / "README.md")
    assert card.data.license == "apache-2.0"
    (tmp_path / "m.gguf").write_bytes(gguf(general__license="mit"))
    single = pull_from(models, str(tmp_path / "m.gguf")).folder
    assert gguf_library.GGUFReader(single / "m.gguf").tensors[0].name == "t"


def test_a_private_repository_wants_a_token_which_goes_nowhere_else(
    tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository(tmp_path / "hub", "acme/private-tiny", floats=MIB)
    monkeypatch.setenv("SOME_TOKEN", TOKEN)
    with serving("hub", tmp_path / "hub") as served:
        with pytest.raises(NotFound, match="or not for you"):
            pull_from(models, "hf:acme/private-tiny", on(served))
        pull_from(models, "hf:acme/private-tiny", on(served, "env:SOME_TOKEN"))
        content = [line for line in served.asked() if line["path"].startswith("/cdn/")]
        assert content
        assert not any(line["authorised"] for line in content), "the token is the hub's alone"
    with pytest.raises(Usage) as e:
        sources.open_source("hf:a/b", Access(token=TOKEN))
    assert e.value.code == "source.no-token"
    assert TOKEN not in str(e.value.as_dict())


@pytest.mark.parametrize("source", ["hf:acme/none", "hf:acme/tiny@nowhere"])
def test_what_is_not_there_is_said(models: Path, hub: Served, source: str) -> None:
    with pytest.raises(NotFound) as e:
        pull_from(models, source, on(hub))
    assert e.value.code == "source.not-found"


def test_nobody_there_is_said_quickly(models: Path) -> None:
    for source in ("hf:acme/tiny", "oci:127.0.0.1:9/m:1"):
        with pytest.raises(NotReady) as e:
            pull_from(models, source, Access(endpoint="http://127.0.0.1:9"))
        assert e.value.code == "source.unreachable"


def test_a_lie_is_found_before_anything_is_visible(tmp_path: Path, models: Path) -> None:
    repository(tmp_path / "hub", floats=MIB)
    for file in ("model.safetensors", "config.json"):  # one by SHA-256, one by its Git id
        with serving("hub", tmp_path / "hub", "--lie", file) as served, pytest.raises(Integrity) as e:
            pull_from(models / file, "hf:acme/tiny", on(served))
        assert e.value.code == "source.wrong-content"
        assert e.value.details["file"] == file
        assert store.installed(models / file) == []
        assert not list((models / file / "partial").iterdir()), "what is wrong is not gone on with"


def test_connections_that_break_are_taken_up_where_they_ended(tmp_path: Path, models: Path) -> None:
    repository(tmp_path / "hub", floats=10 * MIB // 4)
    with serving("hub", tmp_path / "hub", "--break-after", str(3 * MIB)) as served:
        pulled = pull_from(models, "hf:acme/tiny", on(served))
        size = sum((pulled.folder / name).stat().st_size for name in pulled.manifest.files)
        assert served.sent == pulled.moved == size, "no byte twice"


def test_a_server_without_ranges_will_do(tmp_path: Path, models: Path) -> None:
    repository(tmp_path / "hub", floats=10 * MIB // 4)
    with serving("hub", tmp_path / "hub", "--no-ranges") as served:
        store.verify(pull_from(models, "hf:acme/tiny", on(served)).folder)


PULL = """
import sys
from pathlib import Path
from allod.models import pull, sources
source = sources.open_source(sys.argv[2], sources.Access(endpoint=sys.argv[3]))
print(pull.pull(Path(sys.argv[1]), source, pull.Wanted(), pull.Rules()).moved)
"""


def start_pull(models: Path, served: Served) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", PULL, str(models), "hf:acme/tiny", served.address]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_killed_in_the_middle_it_goes_on_where_it_was(tmp_path: Path, models: Path) -> None:
    size = 64 * MIB
    repository(tmp_path / "hub", floats=size // 4)
    with serving("hub", tmp_path / "hub", "--rate", str(12 * MIB)) as served:
        process = start_pull(models, served)
        until = time.monotonic() + 30
        while not any(p.stat().st_size >= 12 for p in models.glob("partial/*/done")):
            assert time.monotonic() < until
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert store.installed(models) == [], "nothing half is visible"
        done = next(models.glob("partial/*/done")).stat().st_size // 4
        assert 0 < done < size // limits.SOURCE_PIECE_BYTES
        served.forget()
    with serving("hub", tmp_path / "hub") as served:
        pulled = pull_from(models, "hf:acme/tiny", on(served))
        left = size - done * limits.SOURCE_PIECE_BYTES
        assert left <= served.sent < left + 10_000, "only what was missing is fetched again"
    store.verify(pulled.folder)
    assert not list((models / "partial").iterdir())


def test_two_processes_fetch_a_content_once(tmp_path: Path, models: Path) -> None:
    repository(tmp_path / "hub", floats=24 * MIB // 4)
    with serving("hub", tmp_path / "hub", "--rate", str(16 * MIB)) as served:
        both = [start_pull(models, served) for _ in range(2)]
        moved = [int(process.communicate(timeout=60)[0]) for process in both]
        large = [line["sent"] for line in served.asked() if line["path"].startswith("/cdn/")]
    assert sum(large) == (tmp_path / "hub/acme/tiny" / COMMIT / "model.safetensors").stat().st_size
    assert min(moved) < MIB < max(moved)


def test_a_damaged_blob_is_fetched_again(models: Path, hub: Served) -> None:
    pulled = pull_from(models, "hf:acme/tiny", on(hub))
    path = pulled.folder / "model.safetensors"
    path.chmod(0o644)
    with path.open("r+b") as f:
        f.seek(-1, 2)
        f.write(b"\0")
    with pytest.raises(Integrity):
        store.verify(pulled.folder)
    store.remove(models, store.look_up(models, "tiny"))
    again = pull_from(models, "hf:acme/tiny", on(hub))
    assert again.moved == path.stat().st_size, "that content, and no other"
    store.verify(again.folder)


def test_no_room_is_said_before_anything_is_fetched(
    models: Path, hub: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blobs, "DISK_FREE_BYTES_MIN", 1 << 60)
    with pytest.raises(NotReady) as e:
        pull_from(models, "hf:acme/tiny", on(hub))
    assert e.value.code == "model.no-space"
    assert hub.sent == 0


# --- what is taken, and what is refused ---------------------------------------------------------------------


def test_of_several_sets_of_weights_one_is_chosen(tmp_path: Path, models: Path) -> None:
    folder = repository(tmp_path / "hub")
    (folder / "model.safetensors").unlink()
    for name in ("tiny-q4_k_m.gguf", "tiny-q8_0.gguf"):
        (folder / name).write_bytes(gguf(general__name=name))
    (folder / "onnx").mkdir()
    (folder / "onnx" / "model.onnx").write_bytes(b"")
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x02.")
    (folder / "modeling_tiny.py").write_bytes(b"print()")
    with serving("hub", tmp_path / "hub") as served:
        with pytest.raises(Usage) as e:
            pull_from(models, "hf:acme/tiny", on(served))
        assert e.value.code == "source.which-file"
        assert "--file 'tiny-q4_k_m.gguf'" in e.value.hint
        pulled = pull_from(models, "hf:acme/tiny", on(served), files=("*q8_0*",))
        asked = " ".join(line["path"] for line in served.asked())
    assert pulled.manifest.weights == "tiny-q8_0.gguf"
    assert set(pulled.left_out) == {
        "onnx/model.onnx", "pytorch_model.bin", "modeling_tiny.py", "tiny-q4_k_m.gguf"
    }  # fmt: skip
    assert "pytorch_model.bin" not in asked, "what is not taken is not fetched"


def test_a_repository_of_pickles_alone_is_refused(tmp_path: Path, models: Path) -> None:
    folder = repository(tmp_path / "hub")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with serving("hub", tmp_path / "hub") as served, pytest.raises(AllodError) as e:
        pull_from(models, "hf:acme/tiny", on(served))
    assert e.value.code == "model.pickle"


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ({"pytorch_model__bin": b"x"}, "model.pickle"),
        ({"vocab__txt": b"\x80\x04."}, "model.pickle"),
        ({"modeling__py": b"x"}, "model.remote-code"),
        ({"preprocessor_config__json": b'{"auto_map": {"A": "b.C"}}'}, "model.remote-code"),
        ({"chat_template__jinja": b"{{ ''.__class__ }}"}, "model.template-unsafe"),
        ({"virus__exe": b"x"}, "model.remote-code"),
    ],
)
def test_a_folder_with_something_bad_in_it_is_refused_whole(
    tmp_path: Path, models: Path, more: dict[str, bytes], code: str
) -> None:
    folder = model_folder(tmp_path / "m", **more)
    with pytest.raises(AllodError) as e:
        pull_from(models, str(folder))
    assert e.value.code == code
    assert store.installed(models) == []


def test_a_forbidden_licence_is_refused_before_the_weights_are_signed(tmp_path: Path, models: Path) -> None:
    sealed: list[Path] = []
    rules = Rules(allowed_licences=("MIT",), seal=sealed.append)
    with pytest.raises(Denied) as e:
        pull_from(models, str(model_folder(tmp_path / "m")), rules=rules)
    assert e.value.code == "model.licence-not-allowed"
    assert not sealed
    assert store.installed(models) == []
    rules = msgspec.structs.replace(rules, allowed_licences=("MIT", "Apache-2.0"))
    pull_from(models, str(tmp_path / "m"), rules=rules)
    assert len(sealed) == 1


def test_a_forbidden_licence_costs_no_weights(models: Path, hub: Served) -> None:
    with pytest.raises(Denied):
        pull_from(models, "hf:acme/tiny", on(hub), Rules(allowed_licences=("MIT",)))
    assert hub.sent < MIB


def test_a_model_that_may_not_be_signed_is_never_visible(tmp_path: Path, models: Path) -> None:
    def refuse(folder: Path) -> None:
        assert (folder / "model.json").is_file(), "whole when it is signed"
        raise Denied("test.no", "no")

    with pytest.raises(Denied):
        pull_from(models, str(model_folder(tmp_path / "m")), rules=Rules(seal=refuse))
    assert store.installed(models) == []


def test_what_a_publisher_signed_is_compared(tmp_path: Path, models: Path) -> None:
    folder = model_folder(tmp_path / "m")
    files = {p.name: digest.of_file(p) for p in folder.iterdir()}
    (folder / "model.sig").write_bytes(b"{}")
    pulled = pull_from(models, str(folder), rules=Rules(publisher=lambda _raw, _name: files))
    assert (pulled.folder / "publisher.sig").read_bytes() == b"{}"
    store.verify(pulled.folder)
    for said, code in (
        (files | {"config.json": "sha256:" + "0" * 64}, "model.changed"),
        ({k: v for k, v in files.items() if k != "config.json"}, "model.extra-file"),
    ):
        with pytest.raises(Integrity) as e:
            pull_from(models, str(folder), rules=Rules(publisher=lambda _r, _n, s=said: s), name="n")
        assert (e.value.code, e.value.details["file"]) == (code, "config.json")


def test_a_tag_moves_only_when_asked_and_the_old_model_stays(tmp_path: Path, models: Path) -> None:
    first = pull_from(models, str(model_folder(tmp_path / "m")))
    model_folder(tmp_path / "m", seed=2)
    with pytest.raises(Usage) as e:
        pull_from(models, str(tmp_path / "m"))
    assert e.value.code == "model.exists"
    second = pull_from(models, str(tmp_path / "m"), replace=True)
    assert store.find(models, "m")[1] == second.manifest
    assert store.find(models, f"m@{first.manifest.digest}")[1] == first.manifest
    store.verify(first.folder)
    pull_from(models, str(tmp_path / "m"), tag="v2")
    assert store.look_up(models, "m").tags == ("latest", "v2")


# --- folders of this machine --------------------------------------------------------------------------------


def test_a_file_of_this_machine_is_copied_once(tmp_path: Path, models: Path) -> None:
    size = 200 * MIB
    folder = model_folder(tmp_path / "m", floats=size // 4)
    first = pull_from(models, str(folder))
    assert first.moved >= size
    again = pull_from(models, str(folder))
    assert again.moved == 0
    (folder / "config.json").write_text('{"architectures": ["XForCausalLM"]}')
    changed = pull_from(models, str(folder), tag="v2")
    assert 0 < changed.moved < 1000, "only what is new is copied"
    (folder / "model.safetensors").unlink()
    store.verify(first.folder)


def test_a_file_that_changes_while_it_is_read_cannot_be_mistaken(tmp_path: Path, models: Path) -> None:
    folder = model_folder(tmp_path / "m", floats=16 * MIB)
    path = folder / "model.safetensors"
    stop = threading.Event()

    def scribble() -> None:
        with path.open("r+b") as f:
            while not stop.is_set():
                f.seek(4096)
                f.write(os.urandom(1 << 20))

    thread = threading.Thread(target=scribble)
    thread.start()
    try:
        with contextlib.suppress(AllodError):
            store.verify(pull_from(models, str(folder)).folder)
    finally:
        stop.set()
        thread.join()
    for address, _ in blobs.Blobs(models).all():
        assert digest.of_file(blobs.Blobs(models).path(address)) == address


# --- registries and layouts ---------------------------------------------------------------------------------


def test_a_registry_takes_and_gives_a_model_whole(
    tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REGISTRY", "user:secret")
    first = pull_from(
        models, str(model_folder(tmp_path / "m", floats=10 * MIB // 4)), name="tiny", maker="Acme"
    )
    with serving("registry", tmp_path / "registry", "--password", "secret") as served:
        target = f"oci:{served.address}/acme/tiny:v1"
        with pytest.raises(Denied) as e:
            push.push(models, store.look_up(models, "tiny"), target)
        assert e.value.code == "source.denied"
        access = Access(token="env:REGISTRY")
        pushed = push.push(models, store.look_up(models, "tiny"), target, access)
        served.forget()
        assert push.push(models, store.look_up(models, "tiny"), target, access) == pushed
        assert sum(line["received"] for line in served.asked() if "/blobs/" in line["path"]) == 0

        other = tmp_path / "other" / "models"
        pulled = pull_from(other, target, access)
        assert pulled.manifest.files == first.manifest.files
        assert pulled.manifest.digest == first.manifest.digest
        assert (pulled.manifest.name, pulled.manifest.origin.maker) == ("tiny", "Acme")
        assert pulled.origin == f"oci:{served.address}/acme/tiny@{pushed}"
        store.verify(pulled.folder)
        served.forget()
        by_digest = f"oci:{served.address}/acme/tiny@{pushed}"
        assert pull_from(other, by_digest, access).moved == 0

        # ORAS itself reads what was pushed, under the files' own names.
        judge = oras.provider.Registry(served.address, insecure=True)
        judge.auth.set_basic_auth("user", "secret")
        got = judge.pull(f"{served.address}/acme/tiny:v1", outdir=str(tmp_path / "judge"))
        assert {Path(p).name for p in got} >= set(first.manifest.files)
        for name, address in first.manifest.files.items():
            assert digest.of_file(tmp_path / "judge" / name) == address


def test_what_oras_pushes_is_pulled(tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = model_folder(tmp_path / "m", floats=10 * MIB // 4)
    with serving("registry", tmp_path / "registry") as served:
        monkeypatch.chdir(folder)
        judge = oras.provider.Registry(served.address, insecure=True)
        names = sorted(p.name for p in folder.iterdir())
        judge.push(f"{served.address}/tiny:v1", files=names, do_chunked=True, chunk_size=4 * MIB)
        assert any(line["method"] == "PATCH" for line in served.asked())
        pulled = pull_from(models, f"oci:{served.address}/tiny:v1")
    assert pulled.manifest.files == {name: digest.of_file(folder / name) for name in names}


def test_a_layout_carries_a_model_and_a_flipped_bit_is_named(tmp_path: Path, models: Path) -> None:
    first = pull_from(models, str(model_folder(tmp_path / "m")))
    target = f"oci-layout:{tmp_path}/layout:v1"
    push.push(models, store.look_up(models, "m"), target)
    assert push.push(models, store.look_up(models, "m"), target)
    index = json.loads((tmp_path / "layout" / "index.json").read_bytes())
    assert len(index["manifests"]) == 1
    other = tmp_path / "other"
    assert pull_from(other, target, name="m").manifest.digest == first.manifest.digest
    assert pull_from(other, target, name="m").moved == 0
    weights = first.manifest.files["model.safetensors"].removeprefix("sha256:")
    path = tmp_path / "layout/blobs/sha256" / weights
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)
    with pytest.raises(Integrity) as e:
        pull_from(tmp_path / "third", target)
    assert (e.value.code, e.value.details["file"]) == ("source.wrong-content", "model.safetensors")
    with pytest.raises(NotFound):
        pull_from(models, f"oci-layout:{tmp_path}/layout:v9")


def test_a_registry_that_lies_about_its_manifest_is_found(tmp_path: Path, models: Path) -> None:
    pull_from(models, str(model_folder(tmp_path / "m")))
    with serving("registry", tmp_path / "registry") as served:
        pushed = push.push(models, store.look_up(models, "m"), f"oci:{served.address}/m:v1")
        path = tmp_path / "registry" / "m" / pushed
        path.write_bytes(path.read_bytes().replace(b"config.json", b"konfig.json"))
        with pytest.raises(AllodError) as e:
            pull_from(tmp_path / "other", f"oci:{served.address}/m@{pushed}")
    assert e.value.code == "source.bad-manifest"


@pytest.mark.parametrize(
    "raw", [b"", b"[]", b'{"schemaVersion":2}', b"\xff" * 100, b'{"layers":' + b"[" * 9999]
)
def test_a_broken_manifest_is_refused(raw: bytes) -> None:
    from allod.models.sources.artefact import files_of

    with pytest.raises(AllodError) as e:
        files_of(raw)
    assert e.value.code == "source.bad-manifest"


def test_tensors_are_whole(tmp_path: Path) -> None:
    (tmp_path / "m.safetensors").write_bytes(tensors())
    assert safetensors.numpy.load_file(tmp_path / "m.safetensors")["w"].shape == (64,)
