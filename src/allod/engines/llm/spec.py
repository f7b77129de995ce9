"""How a CPU replica of a GGUF model is launched."""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
import sys
from pathlib import Path

from allod import digest
from allod.engines.interpreter import python_env
from allod.engines.launch import LaunchSpec
from allod.errors import NotReady, Unprocessable
from allod.models.manifest import ModelManifest


def engine_name() -> str:
    """E.g. "llama.cpp/xllamacpp 2026.10.11549". Raises NotReady `engine.not-installed`."""
    try:
        return "llama.cpp/xllamacpp " + importlib.metadata.version("xllamacpp")
    except importlib.metadata.PackageNotFoundError as e:
        raise NotReady(
            "engine.not-installed", "the LLM engine is not installed", hint="pip install 'allod[llm]'"
        ) from e


@functools.cache
def engine_digest() -> str:
    """The digest of the wheel's shared library: the code that computes. Read once per process (about 0.1
    s).
    """
    engine_name()
    found = importlib.util.find_spec("xllamacpp")
    assert found is not None
    assert found.origin is not None
    return digest.of_file(next(Path(found.origin).parent.glob("xllamacpp*.so")))


def threads_for(cores: int, replicas: int = 1) -> int:
    """Computing threads per replica: one core stays free, because llama.cpp's threads wait by spinning and a
    replica with as many threads as cores loses four fifths of its speed as soon as anything else runs."""
    return max(1, (cores - 1) // max(1, replicas))


def context_of(model: ModelManifest, wanted: int | None) -> int:
    """Tokens of context that one request has: what is wanted, or what the model was made for up to 8192."""
    return wanted or min(model.context_tokens or 4096, 8192)


def llm_spec(
    model: ModelManifest,
    *,
    id: str,
    folder: Path,
    run_dir: Path,
    threads: int,
    context_tokens: int | None = None,
    parallel: int = 4,
    python: Path | None = None,
) -> LaunchSpec:
    """The replica `id` of the model in `folder`, listening on `<run_dir>/http.sock`.

    `context_tokens` is per request, by default what the model was made for but at most 8192: memory is set
    aside for `parallel` times as much. `python` runs it (default: this interpreter). Raises Unprocessable
    `engine.format` for a model llama.cpp cannot load.
    """
    if model.format != "gguf" or model.kind == "ocr":
        raise Unprocessable(
            "engine.format", f"{model.name}: the CPU engine serves GGUF chat and embedding models"
        )
    weights = folder / model.weights
    socket = run_dir / "http.sock"
    context = context_of(model, context_tokens)
    argv = [
        str(python or sys.executable), "-m", "allod.engines.llm", "--socket", str(socket),
        "--model", str(weights), "--alias", model.name, "--ctx", str(context),
        "--parallel", str(parallel), "--threads", str(threads),
    ]  # fmt: skip
    if model.kind == "embed":
        argv.append("--embedding")
    return LaunchSpec(
        id=id,
        service=model.name,
        argv=tuple(argv),
        socket=socket,
        env=python_env(),
        read_only=(folder,),
        ready_timeout_s=300.0,  # a large model from a slow disk
        engine=engine_name(),
        engine_digest=engine_digest(),
        model_digest=model.digest,
    )
