"""The launch of a CPU replica: sealed, named, and never with as many threads as cores."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from allod.engines.llm.spec import engine_digest, llm_spec, threads_for
from allod.engines.socket_claim import claim
from allod.errors import Unprocessable, Usage
from allod.models.manifest import ModelManifest, files_digest

FILES = {"m.gguf": "sha256:" + "0" * 64}
MODEL = ModelManifest(
    name="m", kind="chat", files=FILES, digest=files_digest(FILES), format="gguf", context_tokens=131_072
)


def test_a_core_stays_free_and_nobody_gets_none() -> None:
    assert [threads_for(c) for c in (1, 2, 4, 64)] == [1, 1, 3, 63]
    assert threads_for(8, replicas=3) == 2
    assert threads_for(2, replicas=9) == 1


def test_a_replica_is_sealed_and_says_what_it_runs(tmp_path: Path) -> None:
    spec = llm_spec(MODEL, id="r", folder=tmp_path / "models", run_dir=tmp_path / "run", threads=1)
    assert not spec.network
    assert spec.socket == tmp_path / "run" / "http.sock"
    assert spec.read_only == (tmp_path / "models",)
    assert spec.engine.startswith("llama.cpp/xllamacpp ")
    assert spec.engine_digest == engine_digest()
    assert spec.model_digest == MODEL.digest
    assert spec.env["HF_HUB_OFFLINE"] == "1"


def test_a_long_trained_context_is_not_set_aside_unasked(tmp_path: Path) -> None:
    def context(asked: int | None) -> str:
        spec = llm_spec(MODEL, id="r", folder=tmp_path, run_dir=tmp_path, threads=1, context_tokens=asked)
        return spec.argv[spec.argv.index("--ctx") + 1]

    assert context(None) == "8192"
    assert context(131_072) == "131072"


def test_only_gguf_is_launched(tmp_path: Path) -> None:
    other = msgspec.structs.replace(MODEL, format="safetensors")
    with pytest.raises(Unprocessable, match="GGUF"):
        llm_spec(other, id="r", folder=tmp_path, run_dir=tmp_path, threads=1)


@pytest.mark.parametrize("path", ["relative.sock", "/tmp/no-suffix", "/tmp/" + "x" * 120 + ".sock"])
def test_a_path_no_socket_can_have_is_named(path: str) -> None:
    with pytest.raises(Usage, match=r"\.sock"):
        claim(Path(path))
