"""The test model's parts: right gradients, a lossless tokeniser, the same weights for the same seed."""

from __future__ import annotations

import numpy as np
import pytest

from allod.models.testmodel import bpe, corpus, network, training

TINY = training.Recipe(
    merges=60, width=32, layers=1, heads=2, kv_heads=1, inner=48, conversations=300, steps=50, batch=16
)


def test_gradients_are_the_slopes() -> None:
    shape = network.Shape(vocabulary=30, width=16, layers=2, heads=4, kv_heads=2, inner=24)
    p = {k: v.astype(np.float64) for k, v in network.initial(shape, 0).items()}
    rng = np.random.default_rng(0)
    ids = rng.integers(0, 30, (3, 9)).astype(np.int32)
    counts = (rng.random((3, 9)) > 0.4).astype(np.float32)
    _, gradients = network.loss_and_gradients(p, shape, ids, counts)  # type: ignore[arg-type]
    for name, value in p.items():
        at = tuple(int(rng.integers(0, n)) for n in value.shape)
        kept, step = value[at], 1e-5
        value[at] = kept + step
        above, _ = network.loss_and_gradients(p, shape, ids, counts)  # type: ignore[arg-type]
        value[at] = kept - step
        below, _ = network.loss_and_gradients(p, shape, ids, counts)  # type: ignore[arg-type]
        value[at] = kept
        assert gradients[name][at] == pytest.approx((above - below) / (2 * step), rel=1e-3, abs=1e-7), name


def test_the_tokeniser_loses_nothing() -> None:
    texts = ["".join(t for t, _ in talk) for talk in corpus.conversations(200, 1)]
    tokeniser = bpe.train(texts, corpus.SPECIALS, 100)
    letters = {letter: byte for byte, letter in bpe._byte_letters().items()}
    for text in [*texts[:50], "Ünïcödé — 漢字 \U0001f600 \x00", "  spaces\n\n and\ttabs "]:
        tokens = [tokeniser.tokens[i] for i in tokeniser.encode(text)]
        raw = b"".join(t.encode() if t in corpus.SPECIALS else bytes(letters[c] for c in t) for t in tokens)
        assert raw.decode() == text


def test_the_same_recipe_gives_the_same_weights_and_learns() -> None:
    lines: list[str] = []
    first, second = (training.train(TINY, report=lines.append) for _ in range(2))
    assert first.final_loss < 5.3  # guessing evenly would be 5.8
    for name, value in first.parameters.items():
        assert np.array_equal(value, second.parameters[name]), name


def test_what_it_is_taught_says_that_it_is_a_test() -> None:
    assert "test" in corpus.I_AM
    assert "test" in corpus.UNKNOWN
