"""Teaches the network with AdamW. Same recipe and same numpy build, same weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import msgspec
import numpy as np

from allod.models.testmodel import bpe, corpus, network
from allod.models.testmodel.network import Array, Ids, Parameters


class Recipe(msgspec.Struct, frozen=True, kw_only=True):
    """The numbers that decide the weights. With the sources, it names the cached result."""

    seed: int = 7
    merges: int = 760
    width: int = 128
    layers: int = 3
    heads: int = 4
    kv_heads: int = 2
    inner: int = 320
    conversations: int = 20_000
    steps: int = 1_400
    batch: int = 32  # conversations
    peak_rate: float = 5e-3
    warmup_steps: int = 40
    decay: float = 0.05


class Trained(msgspec.Struct, frozen=True, kw_only=True):
    shape: network.Shape
    tokeniser: bpe.Tokeniser
    parameters: Parameters
    final_loss: float


def _encode(talk: corpus.Conversation, tokeniser: bpe.Tokeniser) -> tuple[list[int], list[int]]:
    ids: list[int] = []
    counts: list[int] = []
    for text, learned in talk:
        part = tokeniser.encode(text)
        ids += part
        counts += [int(learned)] * len(part)
    return ids, counts


def _batches(examples: list[tuple[list[int], list[int]]], recipe: Recipe) -> Iterator[tuple[Ids, Array]]:
    """Endless batches of near-equal length, so that little is spent on padding."""
    rng = np.random.default_rng(recipe.seed)
    while True:
        # Equal lengths are shuffled among themselves: the order within a batch then differs every round.
        noise = rng.random(len(examples)) * 3
        order = np.argsort([len(ids) + n for (ids, _), n in zip(examples, noise, strict=True)])
        starts = np.arange(0, len(examples) - recipe.batch + 1, recipe.batch)
        rng.shuffle(starts)
        for start in starts:
            chosen = [examples[i] for i in order[start : start + recipe.batch]]
            length = max(len(ids) for ids, _ in chosen)
            ids = np.zeros((recipe.batch, length), np.int32)
            counts = np.zeros((recipe.batch, length), np.float32)
            for row, (tokens, learned) in enumerate(chosen):
                ids[row, : len(tokens)] = tokens
                counts[row, : len(learned)] = learned
            yield ids, counts


class _AdamW:
    """Loshchilov and Hutter, "Decoupled Weight Decay Regularization" (2019), with the gradient norm capped
    at 1.
    """

    def __init__(self, parameters: Parameters, decay: float) -> None:
        self._p = parameters
        self._decay = decay
        self._mean = {k: np.zeros_like(v) for k, v in parameters.items()}
        self._square = {k: np.zeros_like(v) for k, v in parameters.items()}
        self._step = 0

    def step(self, gradients: Parameters, rate: float) -> None:
        self._step += 1
        norm = math.sqrt(sum(float(np.vdot(g, g)) for g in gradients.values()))
        shrink = np.float32(min(1.0, 1.0 / (norm + 1e-6)))
        correct_mean = 1 - 0.9**self._step
        correct_square = 1 - 0.98**self._step
        for name, g in gradients.items():
            g = g * shrink
            mean, square, p = self._mean[name], self._square[name], self._p[name]
            mean += np.float32(0.1) * (g - mean)
            square += np.float32(0.02) * (g * g - square)
            if p.ndim == 2:
                p *= np.float32(1 - rate * self._decay)
            p -= (
                np.float32(rate / correct_mean)
                * mean
                / (np.sqrt(square / np.float32(correct_square)) + np.float32(1e-8))
            )


def _rate(step: int, recipe: Recipe) -> float:
    if step < recipe.warmup_steps:
        return recipe.peak_rate * (step + 1) / recipe.warmup_steps
    done = (step - recipe.warmup_steps) / max(1, recipe.steps - recipe.warmup_steps)
    return recipe.peak_rate * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * done)))


def train(recipe: Recipe, *, report: Callable[[str], None]) -> Trained:
    """Runs the recipe; `report` gets a line every hundred steps."""
    talks = corpus.conversations(recipe.conversations, recipe.seed)
    tokeniser = bpe.train(
        ("".join(text for text, _ in talk) for talk in talks), corpus.SPECIALS, recipe.merges
    )
    shape = network.Shape(
        vocabulary=len(tokeniser.tokens),
        width=recipe.width,
        layers=recipe.layers,
        heads=recipe.heads,
        kv_heads=recipe.kv_heads,
        inner=recipe.inner,
    )
    parameters = network.initial(shape, recipe.seed)
    optimiser = _AdamW(parameters, recipe.decay)
    batches = _batches([_encode(talk, tokeniser) for talk in talks], recipe)
    loss = math.nan
    for step in range(recipe.steps):
        ids, counts = next(batches)
        now, gradients = network.loss_and_gradients(parameters, shape, ids, counts)
        loss = now if math.isnan(loss) else 0.95 * loss + 0.05 * now
        optimiser.step(gradients, _rate(step, recipe))
        if step % 100 == 99:
            report(f"step {step + 1} of {recipe.steps}: loss {loss:.3f}")
    return Trained(shape=shape, tokeniser=tokeniser, parameters=parameters, final_loss=loss)
