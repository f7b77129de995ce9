"""How vLLM, the engine for GPUs, is launched as a replica. vLLM is a program of its own environment, never
imported.

What a caller may rely on, and where vLLM's dialect differs from llama.cpp's:
- it speaks OpenAI's API under the name given with `--served-model-name` and answers 404 to any other;
- a stream has usage only with `stream_options.include_usage`, in a frame without choices;
- `tool_choice: "auto"` needs `--enable-auto-tool-choice` and the parser of the model's family, given here;
- extra sampling fields (`top_k`, `min_p`, `repetition_penalty`, …) are accepted in the body;
- `/health` is 200 with an empty body once the engine runs; `/metrics` is Prometheus text with `vllm:` names.
Source: vLLM's documentation of `vllm serve` (flags, environment variables, usage statistics).
"""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec

from allod import digest
from allod.engines.launch import TELEMETRY_OFF, LaunchSpec
from allod.errors import NotReady, Unprocessable
from allod.models.manifest import ModelManifest

# The device nodes of NVIDIA's driver; a sandbox passes those that exist.
_CONTROL = ("nvidiactl", "nvidia-uvm", "nvidia-uvm-tools", "nvidia-modeset")

# Families, found in a model's name, to vLLM's tool call parsers.
_PARSERS = {
    "mistral": "mistral", "ministral": "mistral", "devstral": "mistral", "magistral": "mistral",
    "qwen": "hermes", "llama-3": "llama3_json", "llama-4": "llama4_pythonic", "gpt-oss": "openai",
    "granite": "granite",
}  # fmt: skip


class Gpus(msgspec.Struct, frozen=True, kw_only=True):
    """Which GPUs a replica uses, by number, and how much of each one's memory it may take."""

    numbers: tuple[int, ...]
    memory_share: float = 0.9


class Installation(msgspec.Struct, frozen=True, kw_only=True):
    """A vLLM that is on this machine: its command, the folders it is made of, and what is known of it."""

    program: tuple[str, ...] = ("vllm",)
    folders: tuple[Path, ...] = ()  # made visible to the sandbox
    version: str = "unknown"
    engine_digest: str = "unknown"


def find_installation(words: tuple[str, ...]) -> Installation:
    """The vLLM that the command `words` starts, found without running it.

    Its environment is the folder around the program's `bin`, with the base of its interpreter where that lies
    elsewhere. The digest is of the package's own record of its files, which lists the hash of each. Raises
    NotReady `engine.not-installed`.
    """
    found = shutil.which(words[0])
    if found is None:
        raise NotReady(
            "engine.not-installed",
            f"there is no program {words[0]!r}",
            hint="install vLLM in an environment of its own, and name its program: /opt/vllm/bin/vllm",
        )
    program = Path(found).resolve()
    root = program.parent.parent if program.parent.name == "bin" else program
    interpreter = program.with_name("python")
    folders = [root, *([interpreter.resolve().parent.parent] if interpreter.exists() else [])]
    records = sorted(root.glob("lib/python*/site-packages/vllm-*.dist-info/RECORD"))
    return Installation(
        program=(str(program), *words[1:]),
        folders=tuple(f for f in dict.fromkeys(folders) if not f.is_relative_to("/usr")),
        version=records[0].parent.name.removesuffix(".dist-info").split("-")[1] if records else "unknown",
        engine_digest=digest.of_file(records[0]) if records else "unknown",
    )


def tool_parser(model: ModelManifest) -> str | None:
    """vLLM's parser for the tool calls of a model, None where its family is not known: tools are then
    refused.
    """
    return next((parser for family, parser in _PARSERS.items() if family in model.name), None)


def vllm_spec(
    model: ModelManifest,
    *,
    id: str,
    folder: Path,
    run_dir: Path,
    gpus: Gpus,
    installation: Installation = Installation(),  # noqa: B008 — frozen
    context_tokens: int | None = None,
    parallel: int | None = None,
) -> LaunchSpec:
    """The replica `id` of the safetensors model in `folder`, listening on `<run_dir>/http.sock`.

    `parallel` bounds the requests in one batch (default: vLLM's own). Raises Unprocessable `engine.format`
    for a model vLLM is not used for here.
    """
    if model.format != "safetensors" or model.kind == "ocr":
        raise Unprocessable(
            "engine.format", f"{model.name}: vLLM serves safetensors chat and embedding models"
        )
    socket = run_dir / "http.sock"
    argv = [
        *installation.program, "serve", str(folder),
        "--uds", str(socket),
        "--served-model-name", model.name,
        "--load-format", "safetensors",  # its default would fall back to pickles
        "--gpu-memory-utilization", str(gpus.memory_share),
        "--tensor-parallel-size", str(len(gpus.numbers)),
        "--disable-uvicorn-access-log",
    ]  # fmt: skip
    if context := context_tokens or model.context_tokens:
        argv += ["--max-model-len", str(context)]
    if parallel:
        argv += ["--max-num-seqs", str(parallel)]
    if model.kind == "embed":
        argv += ["--runner", "pooling"]
    elif parser := tool_parser(model):
        argv += ["--enable-auto-tool-choice", "--tool-call-parser", parser]
    return LaunchSpec(
        id=id,
        service=model.name,
        argv=tuple(argv),
        socket=socket,
        env=environment(run_dir, gpus),
        read_only=(folder, *installation.folders),
        devices=devices(gpus),
        ready_timeout_s=900.0,  # loading and compiling a large model
        engine=f"vllm {installation.version}",
        engine_digest=installation.engine_digest,
        model_digest=model.digest,
    )


def environment(run_dir: Path, gpus: Gpus) -> dict[str, str]:
    """vLLM's whole environment: nothing phones home, nothing is fetched, caches stay in the replica's
    folder.
    """
    return {
        **TELEMETRY_OFF,
        "VLLM_DO_NOT_TRACK": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "VLLM_CACHE_ROOT": str(run_dir / "cache"),
        "VLLM_CONFIG_ROOT": str(run_dir / "config"),
        "HF_HOME": str(run_dir / "hf"),
        "XDG_CACHE_HOME": str(run_dir / "cache"),
        "HOME": str(run_dir),
        "CUDA_VISIBLE_DEVICES": ",".join(str(n) for n in gpus.numbers),
        "PYTHONUNBUFFERED": "1",
    }


def devices(gpus: Gpus) -> tuple[Path, ...]:
    """The device nodes a replica on these GPUs opens."""
    names = [*(f"nvidia{n}" for n in gpus.numbers), *_CONTROL]
    return tuple(Path("/dev") / name for name in names)
