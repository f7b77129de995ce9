"""A Mistral-architecture decoder in numpy, forwards and backwards.

RMSNorm, rotary positions on interleaved pairs (what GGUF's `llama` architecture expects), grouped-query
attention, SwiGLU, tied embeddings. Parameters carry their GGUF names, matrices are [out, in] as llama.cpp
stores them, everything is float32. Shapes below: B sequences, T positions, D width, H heads, K key/value
heads. Sources: Jiang et al., "Mistral 7B" (2023); Su et al., "RoFormer" (2021); Shazeer, "GLU Variants"
(2020).
"""

from __future__ import annotations

from typing import Any, cast

import msgspec
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int32]
Parameters = dict[str, Array]
Cache = dict[str, Any]


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    vocabulary: int
    width: int = 128
    layers: int = 3
    heads: int = 4
    kv_heads: int = 2
    inner: int = 320
    context: int = 4096
    rope_base: float = 10_000.0
    epsilon: float = 1e-5

    @property
    def head_width(self) -> int:
        return self.width // self.heads


def initial(shape: Shape, seed: int) -> Parameters:
    """Random weights; matrices that write into the residual stream start smaller, the deeper the net."""
    rng = np.random.default_rng(seed)
    kv = shape.kv_heads * shape.head_width

    def matrix(rows: int, columns: int, scale: float) -> Array:
        return (rng.standard_normal((rows, columns)) * scale).astype(np.float32)

    inward = shape.width**-0.5
    outward = inward / (2 * shape.layers) ** 0.5
    p: Parameters = {
        "token_embd.weight": matrix(shape.vocabulary, shape.width, 0.05),
        "output_norm.weight": np.ones(shape.width, np.float32),
    }
    for i in range(shape.layers):
        b = f"blk.{i}."
        p[b + "attn_norm.weight"] = np.ones(shape.width, np.float32)
        p[b + "attn_q.weight"] = matrix(shape.width, shape.width, inward)
        p[b + "attn_k.weight"] = matrix(kv, shape.width, inward)
        p[b + "attn_v.weight"] = matrix(kv, shape.width, inward)
        p[b + "attn_output.weight"] = matrix(shape.width, shape.width, outward)
        p[b + "ffn_norm.weight"] = np.ones(shape.width, np.float32)
        p[b + "ffn_gate.weight"] = matrix(shape.inner, shape.width, inward)
        p[b + "ffn_up.weight"] = matrix(shape.inner, shape.width, inward)
        p[b + "ffn_down.weight"] = matrix(shape.width, shape.inner, outward)
    return p


# --- pieces: each forward returns what its backward needs ---------------------------------------------------


def _norm(x: Array, gain: Array, epsilon: float) -> tuple[Array, Cache]:
    scale = np.float32(1.0) / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + np.float32(epsilon))
    unit: Array = x * scale
    return unit * gain, {"unit": unit, "scale": scale, "gain": gain}


def _norm_back(dy: Array, c: Cache) -> tuple[Array, Array]:
    unit: Array = c["unit"]
    d = dy * c["gain"]
    dx: Array = c["scale"] * (d - unit * np.mean(d * unit, axis=-1, keepdims=True))
    return dx, np.sum(dy * unit, axis=tuple(range(dy.ndim - 1)))


def _linear_back(dy: Array, x: Array, weight: Array) -> tuple[Array, Array]:
    flat = dy.reshape(-1, dy.shape[-1])
    return (flat @ weight).reshape(x.shape), flat.T @ x.reshape(-1, x.shape[-1])


def _angles(shape: Shape, length: int) -> tuple[Array, Array]:
    pairs = np.arange(0, shape.head_width, 2, dtype=np.float64) / shape.head_width
    angle = np.arange(length)[:, None] / shape.rope_base**pairs
    return np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)


def _rotate(x: Array, cos: Array, sin: Array) -> Array:
    """Turns each pair (x0,x1), (x2,x3) … of [..., T, head] by its angle; with -sin it turns back."""
    out = np.empty_like(x)
    even, odd = x[..., 0::2], x[..., 1::2]
    out[..., 0::2] = even * cos - odd * sin
    out[..., 1::2] = even * sin + odd * cos
    return out


def _attention(x: Array, p: Parameters, b: str, shape: Shape) -> tuple[Array, Cache]:
    size, length, _ = x.shape
    groups = shape.heads // shape.kv_heads
    cos, sin = _angles(shape, length)

    def heads(weight: str, per_kv: int) -> Array:
        split = (x @ p[b + weight].T).reshape(size, length, shape.kv_heads, per_kv, shape.head_width)
        return np.ascontiguousarray(split.transpose(0, 2, 3, 1, 4))  # [B, K, groups, T, head]

    q = _rotate(heads("attn_q.weight", groups), cos, sin)
    k = _rotate(heads("attn_k.weight", 1), cos, sin)
    v = heads("attn_v.weight", 1)
    scale = np.float32(shape.head_width**-0.5)
    scores = q @ k.swapaxes(-1, -2) * scale
    scores += np.triu(np.full((length, length), -1e9, np.float32), 1)
    scores -= scores.max(axis=-1, keepdims=True)
    np.exp(scores, out=scores)
    scores /= scores.sum(axis=-1, keepdims=True)
    mixed = (scores @ v).transpose(0, 3, 1, 2, 4).reshape(size, length, shape.width)
    cache = {"x": x, "q": q, "k": k, "v": v, "a": scores, "mixed": mixed, "turn": (cos, sin), "scale": scale}
    return cast("Array", mixed @ p[b + "attn_output.weight"].T), cache


def _attention_back(dy: Array, c: Cache, p: Parameters, g: Parameters, b: str) -> Array:
    q, k, v, a = c["q"], c["k"], c["v"], c["a"]
    size, kv_heads, groups, length, head = q.shape
    cos, sin = c["turn"]
    dmixed, g[b + "attn_output.weight"] = _linear_back(dy, c["mixed"], p[b + "attn_output.weight"])
    dout = dmixed.reshape(size, length, kv_heads, groups, head).transpose(0, 2, 3, 1, 4)
    da = dout @ v.swapaxes(-1, -2)
    dv = (a.swapaxes(-1, -2) @ dout).sum(axis=2, keepdims=True)
    ds = a * (da - np.sum(da * a, axis=-1, keepdims=True)) * c["scale"]
    dq = _rotate(ds @ k, cos, -sin)
    dk = _rotate((ds.swapaxes(-1, -2) @ q).sum(axis=2, keepdims=True), cos, -sin)
    dx: Array = np.zeros_like(c["x"])
    for name, d in (("attn_q.weight", dq), ("attn_k.weight", dk), ("attn_v.weight", dv)):
        flat = d.transpose(0, 3, 1, 2, 4).reshape(size, length, -1)
        part, g[b + name] = _linear_back(flat, c["x"], p[b + name])
        dx += part
    return dx


def _feed(x: Array, p: Parameters, b: str) -> tuple[Array, Cache]:
    gate, up = x @ p[b + "ffn_gate.weight"].T, x @ p[b + "ffn_up.weight"].T
    open_: Array = np.float32(1.0) / (np.float32(1.0) + np.exp(-gate))
    inner = gate * open_ * up
    out: Array = inner @ p[b + "ffn_down.weight"].T
    return out, {"x": x, "gate": gate, "up": up, "open": open_, "inner": inner}


def _feed_back(dy: Array, c: Cache, p: Parameters, g: Parameters, b: str) -> Array:
    gate, up, open_ = c["gate"], c["up"], c["open"]
    dinner, g[b + "ffn_down.weight"] = _linear_back(dy, c["inner"], p[b + "ffn_down.weight"])
    dgate = dinner * up * open_ * (1.0 + gate * (1.0 - open_))
    dx_gate, g[b + "ffn_gate.weight"] = _linear_back(dgate, c["x"], p[b + "ffn_gate.weight"])
    dx_up, g[b + "ffn_up.weight"] = _linear_back(dinner * gate * open_, c["x"], p[b + "ffn_up.weight"])
    return dx_gate + dx_up


# --- the whole ----------------------------------------------------------------------------------------------


def _forward(p: Parameters, shape: Shape, ids: Ids) -> tuple[Array, list[Cache]]:
    x = p["token_embd.weight"][ids]
    caches: list[Cache] = []
    for i in range(shape.layers):
        b = f"blk.{i}."
        h, norm_a = _norm(x, p[b + "attn_norm.weight"], shape.epsilon)
        y, attention = _attention(h, p, b, shape)
        x = x + y
        h, norm_f = _norm(x, p[b + "ffn_norm.weight"], shape.epsilon)
        y, feed = _feed(h, p, b)
        x = x + y
        caches.append({"norm_a": norm_a, "attention": attention, "norm_f": norm_f, "feed": feed})
    x, norm = _norm(x, p["output_norm.weight"], shape.epsilon)
    caches.append({"norm": norm})
    return x, caches


def logits(p: Parameters, shape: Shape, ids: Ids) -> Array:
    """[B, T] ids to [B, T, vocabulary] unnormalised log-probabilities of the next token."""
    return _forward(p, shape, ids)[0] @ p["token_embd.weight"].T


def loss_and_gradients(p: Parameters, shape: Shape, ids: Ids, counts: Array) -> tuple[float, Parameters]:
    """Mean cross-entropy in nats of predicting ids[:, 1:], over the positions where `counts` (same shape as
    `ids`) is 1, and its gradient by parameter name."""
    x, caches = _forward(p, shape, ids[:, :-1])
    rows, columns = np.nonzero(counts[:, 1:])
    targets = ids[:, 1:][rows, columns]
    seen = x[rows, columns]
    scores = seen @ p["token_embd.weight"].T
    scores -= scores.max(axis=-1, keepdims=True)
    np.exp(scores, out=scores)
    scores /= scores.sum(axis=-1, keepdims=True)
    picked = np.arange(len(targets))
    loss = float(-np.mean(np.log(scores[picked, targets] + 1e-9)))
    scores[picked, targets] -= 1.0
    scores /= np.float32(len(targets))

    g: Parameters = {"token_embd.weight": cast("Array", scores.T @ seen)}
    dx = np.zeros_like(x)
    dx[rows, columns] = scores @ p["token_embd.weight"]
    dx, g["output_norm.weight"] = _norm_back(dx, caches[-1]["norm"])
    for i in reversed(range(shape.layers)):
        b, c = f"blk.{i}.", caches[i]
        dh, g[b + "ffn_norm.weight"] = _norm_back(_feed_back(dx, c["feed"], p, g, b), c["norm_f"])
        dx = dx + dh
        dh, g[b + "attn_norm.weight"] = _norm_back(_attention_back(dx, c["attention"], p, g, b), c["norm_a"])
        dx = dx + dh
    np.add.at(g["token_embd.weight"], ids[:, :-1].reshape(-1), dx.reshape(-1, shape.width))
    return loss, g
