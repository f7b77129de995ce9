"""vLLM's launch spec, carried out: a real process that takes its flags and speaks its protocol."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import openai
import pytest

from allod.engines.vllm import Gpus, Installation, vllm_spec
from allod.errors import Unprocessable
from allod.models.manifest import ModelManifest, files_digest

FAKE = Path(__file__).parent.parent / "servers" / "fake_vllm.py"
FILES = {"model.safetensors": "sha256:" + "0" * 64}
MODEL = ModelManifest(
    name="ministral-3-8b",
    kind="chat",
    files=FILES,
    digest=files_digest(FILES),
    format="safetensors",
    context_tokens=4096,
)


@pytest.fixture(scope="module")
def vllm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[openai.OpenAI, httpx.Client]]:
    folder = tmp_path_factory.mktemp("v")
    spec = vllm_spec(
        MODEL,
        id="v",
        folder=folder,
        run_dir=folder,
        gpus=Gpus(numbers=(0,)),
        installation=Installation(program=(sys.executable, str(FAKE))),
    )
    process = subprocess.Popen(spec.argv, env=spec.env, stderr=subprocess.PIPE)
    http = httpx.Client(transport=httpx.HTTPTransport(uds=str(spec.socket)), base_url="http://v", timeout=10)
    deadline = time.monotonic() + 20
    while True:
        try:
            if http.get(spec.health_path).status_code == 200:
                break
        except httpx.TransportError:
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < deadline
        time.sleep(0.05)
    yield openai.OpenAI(api_key="none", base_url="http://v/v1", http_client=http, max_retries=0), http
    process.kill()
    process.communicate()


def _ask(sdk: openai.OpenAI, **more: Any) -> Any:
    return sdk.chat.completions.create(
        **({"model": "ministral-3-8b", "messages": [{"role": "user", "content": "hi"}]} | more)
    )


def test_it_serves_the_model_under_our_name(vllm: tuple[openai.OpenAI, httpx.Client]) -> None:
    sdk, _ = vllm
    assert [m.id for m in sdk.models.list()] == ["ministral-3-8b"]
    assert _ask(sdk).usage.total_tokens == 12
    with pytest.raises(openai.NotFoundError):
        _ask(sdk, model="another")


def test_a_stream_carries_usage_when_asked(vllm: tuple[openai.OpenAI, httpx.Client]) -> None:
    chunks = list(_ask(vllm[0], stream=True, stream_options={"include_usage": True}))
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == "Bonjour, le monde."
    assert chunks[-1].usage.completion_tokens == 5
    assert chunks[-1].choices == []


def test_tools_are_on_for_a_known_family(vllm: tuple[openai.OpenAI, httpx.Client]) -> None:
    tools = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
    assert _ask(vllm[0], tools=tools).choices[0].message.tool_calls[0].function.name == "f"


def test_leaving_stops_the_work(vllm: tuple[openai.OpenAI, httpx.Client]) -> None:
    _, http = vllm
    body = {"model": "ministral-3-8b", "messages": [], "stream": True, "ignore_eos": True}
    with http.stream("POST", "/v1/chat/completions", json=body) as response:
        lines = response.iter_lines()  # kept: letting it go would close the stream
        next(lines)
        assert " 1.0" in http.get("/metrics").text
    deadline = time.monotonic() + 2
    while " 0.0" not in http.get("/metrics").text:
        assert time.monotonic() < deadline


def test_the_sandbox_gets_the_gpu_and_no_network(tmp_path: Path) -> None:
    spec = vllm_spec(MODEL, id="v", folder=tmp_path, run_dir=tmp_path, gpus=Gpus(numbers=(0, 2)))
    assert not spec.network
    assert Path("/dev/nvidia2") in spec.devices
    assert Path("/dev/nvidiactl") in spec.devices
    assert spec.env["CUDA_VISIBLE_DEVICES"] == "0,2"
    assert spec.argv[spec.argv.index("--tensor-parallel-size") + 1] == "2"
    assert "--trust-remote-code" not in spec.argv


def test_a_format_that_could_run_code_is_not_launched(tmp_path: Path) -> None:
    gguf = msgspec.structs.replace(MODEL, format="gguf")
    with pytest.raises(Unprocessable, match="safetensors"):
        vllm_spec(gguf, id="v", folder=tmp_path, run_dir=tmp_path, gpus=Gpus(numbers=(0,)))
