"""Fits the costs of a scheme to labelled pairs: logistic regression by Newton's method, in plain Python.

Guarantees: deterministic; the same pairs give the same costs to the last digit shown. Folds never share a
name, so that a cross-validated figure is not a memory of it. For who has labelled pairs of their own, and
for the project's.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import msgspec

from allod.kyc.screening.align import align
from allod.kyc.screening.entity import Kind
from allod.kyc.screening.names import parse
from allod.kyc.screening.score import FACTORS, Scheme, logistic, logit, measure

RIDGE = 1.0  # pulls standardised costs towards 0; between 0.3 and 10 hardly anything changes
_ROUNDS = 40
_DIGITS = 4


class Pair(msgspec.Struct, frozen=True):
    """Two names, and whether a person said that they are one."""

    left: str
    right: str
    kind: Kind
    same: bool


class Quality(msgspec.Struct, frozen=True):
    """The best F1 with its threshold, and false positives at 90 % recall."""

    f1: float
    threshold: float
    false_positives_at_90: float


def measured(pairs: Sequence[Pair]) -> list[tuple[float, ...]]:
    """The factors of each pair."""
    rows = []
    for p in pairs:
        a, b = parse(p.left), parse(p.right)
        rows.append(measure(a, b, align(a, b), p.kind))
    return rows


def fit(rows: Sequence[Sequence[float]], same: Sequence[bool], version: str) -> Scheme:
    """The scheme under which the labels are likeliest."""
    width = len(FACTORS)
    mean = [sum(r[k] for r in rows) / len(rows) for k in range(width)]
    spread = [(sum((r[k] - mean[k]) ** 2 for r in rows) / len(rows)) ** 0.5 or 1.0 for k in range(width)]
    scaled = [[1.0, *((r[k] - mean[k]) / spread[k] for k in range(width))] for r in rows]
    w = [0.0] * (width + 1)
    for _ in range(_ROUNDS):
        gradient = [0.0, *(RIDGE * x for x in w[1:])]
        hessian = [[RIDGE if i == j > 0 else 0.0 for j in range(width + 1)] for i in range(width + 1)]
        for z, y in zip(scaled, same, strict=True):
            p = logistic(sum(x * v for x, v in zip(w, z, strict=True)))
            for i, zi in enumerate(z):
                gradient[i] += zi * (p - y)
                for j in range(i + 1):
                    hessian[i][j] += p * (1 - p) * zi * z[j]
        for i in range(width + 1):
            for j in range(i):
                hessian[j][i] = hessian[i][j]
        step = _solve(hessian, gradient)
        w = [x - s for x, s in zip(w, step, strict=True)]
        if max(abs(s) for s in step) < 1e-9:
            break
    costs = [-w[k + 1] / spread[k] for k in range(width)]
    base = w[0] + sum(c * m for c, m in zip(costs, mean, strict=True))
    return Scheme(version, round(base, _DIGITS), tuple(round(c, _DIGITS) for c in costs))


def _solve(matrix: list[list[float]], right: list[float]) -> list[float]:
    """Gauss with pivoting; the ridge keeps the matrix regular."""
    n = len(right)
    m = [[*row, right[i]] for i, row in enumerate(matrix)]
    for c in range(n):
        pivot = max(range(c, n), key=lambda r: abs(m[r][c]))
        m[c], m[pivot] = m[pivot], m[c]
        for r in range(n):
            if r != c and m[r][c]:
                f = m[r][c] / m[c][c]
                m[r] = [x - f * y for x, y in zip(m[r], m[c], strict=True)]
    return [m[i][n] / m[i][i] for i in range(n)]


def quality(scores: Sequence[float], same: Sequence[bool]) -> Quality:
    """Best F1 over all thresholds, and false positives where recall first reaches 90 %."""
    positives = sum(same)
    negatives = len(same) - positives
    order = sorted(zip(scores, same, strict=True), key=lambda x: -x[0])
    best, at, fpr90 = 0.0, 0.0, 1.0
    hits = alarms = 0
    reached = False
    for i, (value, label) in enumerate(order):
        hits += label
        alarms += not label
        if i + 1 < len(order) and order[i + 1][0] == value:
            continue
        f1 = 2 * hits / (hits + alarms + positives)
        if f1 > best:
            best, at = f1, value
        if not reached and hits >= 0.9 * positives:
            fpr90, reached = alarms / negatives, True
    return Quality(best, at, fpr90)


def folds(pairs: Sequence[Pair], count: int, seed: int) -> list[int]:
    """The fold of each pair; pairs that share a name, however indirectly, are in one fold."""
    parent: dict[str, str] = {}

    def root(x: str) -> str:
        parent.setdefault(x, x)
        while parent[x] != x:
            x = parent[x]
        return x

    for p in pairs:
        a, b = root(p.left.casefold()), root(p.right.casefold())
        parent[a] = b
    groups = sorted({root(p.left.casefold()) for p in pairs})
    random.Random(seed).shuffle(groups)  # noqa: S311 - a draw that has to be repeatable, not secret
    fold_of = {g: i % count for i, g in enumerate(groups)}
    return [fold_of[root(p.left.casefold())] for p in pairs]


def cross_validated(pairs: Sequence[Pair], *, count: int = 5, seed: int = 0) -> Quality:
    """The quality on pairs that the costs were not fitted on, every pair judged once."""
    rows = measured(pairs)
    same = [p.same for p in pairs]
    fold = folds(pairs, count, seed)
    scores = [0.0] * len(pairs)
    for f in range(count):
        inside = [i for i, x in enumerate(fold) if x != f]
        scheme = fit([rows[i] for i in inside], [same[i] for i in inside], "fold")
        for i, x in enumerate(fold):
            if x == f:
                scores[i] = logit(rows[i], scheme)
    return quality(scores, same)
