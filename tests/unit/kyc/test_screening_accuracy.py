"""The bar: better than what was measured for the best open matcher on such pairs, and far cheaper."""

from __future__ import annotations

import csv
import time
from pathlib import Path

import pytest

from allod.kyc.screening import fit, names, score
from allod.kyc.screening.entity import Kind

PAIRS = Path(__file__).parents[4] / "shared" / "data" / "names" / "pairs_dev.csv"
KINDS: dict[str, Kind] = {
    "Person": "person", "Company": "organisation", "Organization": "organisation", "Vessel": "vessel",
}  # fmt: skip


@pytest.fixture(scope="module")
def pairs() -> list[fit.Pair]:
    if not PAIRS.exists():
        pytest.skip("the labelled pairs are not beside the checkout (../shared/data/names/pairs_dev.csv)")
    with PAIRS.open(encoding="utf-8", newline="") as f:
        return [
            fit.Pair(r["name1"], r["name2"], KINDS.get(r["schema"], "unknown"), r["is_match"] == "true")
            for r in csv.DictReader(f)
        ]


def test_pairs_it_was_not_fitted_on_are_judged_well(pairs: list[fit.Pair]) -> None:
    found = [fit.cross_validated(pairs, seed=seed) for seed in range(3)]
    assert min(q.f1 for q in found) > 0.87  # bar 0.80
    assert max(q.false_positives_at_90 for q in found) < 0.20  # bar 0.47


def test_the_shipped_costs_are_the_fitted_ones(pairs: list[fit.Pair]) -> None:
    fitted = fit.fit(fit.measured(pairs), [p.same for p in pairs], score.SCHEME.version)
    assert fitted.base == pytest.approx(score.SCHEME.base, abs=0.01)
    assert fitted.costs == pytest.approx(score.SCHEME.costs, abs=0.01)


def test_every_cost_is_a_cost() -> None:
    assert all(cost > 0 for cost in score.SCHEME.costs)


def test_folds_share_no_name(pairs: list[fit.Pair]) -> None:
    fold = fit.folds(pairs, 5, seed=1)
    seen: dict[str, int] = {}
    for pair, number in zip(pairs, fold, strict=True):
        for name in (pair.left.casefold(), pair.right.casefold()):
            assert seen.setdefault(name, number) == number
    assert set(fold) == set(range(5))


def test_a_pair_costs_little(pairs: list[fit.Pair]) -> None:
    """The bar is 47 µs; the best of several rounds, for other work on the machine is no cost of ours."""
    best = min(_round(pairs) for _ in range(8))
    assert best < 47e-6


def _round(pairs: list[fit.Pair]) -> float:
    began = time.process_time()
    for p in pairs:
        score.score(names.parse(p.left), names.parse(p.right), p.kind)
    return (time.process_time() - began) / len(pairs)
