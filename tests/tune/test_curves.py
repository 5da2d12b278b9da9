"""Curves, vocabularies and choices of exits against slow and obvious counting."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from offramp.tune.choose import Prices, candidate_layers, choose, expected_seconds
from offramp.tune.curves import NEVER, Judged, curve_of, lowest_threshold
from offramp.tune.vocabulary import coverage, frequent_tokens


def judged(rows: int, seed: int, steps: int = 10) -> Judged:
    """Confidences with many ties; agreement grows with confidence."""
    pick = np.random.default_rng(seed)
    confidence = (np.round(pick.random(rows) * steps) / steps).astype(np.float32)
    return Judged(confidence, pick.random(rows) < confidence)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("precision", [0.6, 0.8, 0.95])
def test_the_lowest_threshold_against_trying_all(seed: int, precision: float) -> None:
    some = judged(200, seed)
    good = []
    for threshold in sorted(set(some.confidence[some.confidence > 0].tolist())):
        leaves = some.confidence >= threshold
        if some.agrees[leaves].mean() >= precision:
            good.append((threshold, leaves.mean(), some.agrees[leaves].mean()))
    found = lowest_threshold(some, precision)
    assert tuple(found) == pytest.approx(good[0] if good else (NEVER, 0.0, 1.0))


def test_tokens_that_may_choose_nothing_never_leave() -> None:
    silent = Judged(np.zeros(5, np.float32), np.ones(5, bool))
    assert lowest_threshold(silent, 0.5) == (NEVER, 0.0, 1.0)


def test_a_curve_counts_shares_and_precisions() -> None:
    confidence = np.array([0.95, 0.92, 0.75, 0.55, 0.0], np.float32)
    curve = curve_of(3, 0.5, Judged(confidence, np.array([True, False, True, False, False])))
    assert curve.agreement == 0.4
    points = {p.threshold: (p.share, p.precision) for p in curve.points}
    assert points[0.9] == (0.4, 0.5)
    assert points[0.7] == pytest.approx((0.6, 2 / 3))
    assert points[0.99] == (0.0, 1.0)


def test_frequent_tokens_are_the_commonest_then_the_lowest() -> None:
    choices = np.array([7, 7, 7, 5, 5, 9, 3], np.int32)
    assert frequent_tokens(choices, 3, 12) == (3, 5, 7)
    assert frequent_tokens(choices, 3, 12, always=(11,)) == (5, 7, 11)
    assert frequent_tokens(choices, 6, 12) == (0, 1, 3, 5, 7, 9)
    assert coverage(choices, (5, 7)) == pytest.approx(5 / 7)


def slow_seconds(prices: Prices, chosen: tuple[int, ...], fires: np.ndarray) -> float:
    """Token by token."""
    total = 0.0
    for row in fires:
        done = 0
        for k in chosen:
            total += sum(prices.segments[done : k + 1]) + prices.checks[k]
            done = k + 1
            if row[k]:
                total += prices.fills[k]
                break
        else:
            total += sum(prices.segments[done:]) + prices.checks[-1]
    return total / len(fires)


PRICES = Prices((2.0, 3.0, 4.0, 5.0), (0.5, 0.6, 0.7, 1.5), (0.9, 0.6, 0.3))


@pytest.mark.parametrize("chosen", [c for n in range(4) for c in combinations(range(3), n)])
def test_expected_time_against_walking_every_token(chosen: tuple[int, ...]) -> None:
    fires = np.random.default_rng(0).random((50, 3)) < [0.2, 0.4, 0.6]
    assert expected_seconds(PRICES, chosen, fires) == pytest.approx(slow_seconds(PRICES, chosen, fires))
    assert expected_seconds(PRICES, (), fires) == pytest.approx(PRICES.full_depth)


def test_the_obviously_cheap_exit_is_chosen() -> None:
    fires = np.zeros((100, 3), bool)
    fires[:90, 1] = True  # nearly every token can leave at the second candidate, none at the others
    curves = [curve_of(layer, 0.1, judged(100, layer)) for layer in (5, 10, 15)]
    plan = choose((5, 10, 15), PRICES, fires, curves, 0.95, most=2)
    assert plan.layers == (10,)
    assert "at layer 10 with" in plan.why and "times as fast" in plan.why
    assert [row["share"] for row in plan.candidates] == [0, 0.9, 0]


def test_the_best_set_is_the_best_of_all() -> None:
    fires = np.random.default_rng(1).random((80, 3)) < [0.3, 0.5, 0.6]
    curves = [curve_of(layer, 0.1, judged(100, layer)) for layer in (5, 10, 15)]
    sets = [c for n in (1, 2, 3) for c in combinations(range(3), n)]
    best = min(sets, key=lambda c: slow_seconds(PRICES, c, fires))
    assert choose((5, 10, 15), PRICES, fires, curves, 0.95, most=3).layers == tuple((5, 10, 15)[k] for k in best)


@pytest.mark.parametrize("depth", [2, 4, 12, 30, 80])
def test_candidates_lie_inside_the_model(depth: int) -> None:
    layers = candidate_layers(depth)
    assert layers == tuple(sorted(set(layers))) and 0 < layers[0] <= layers[-1] < depth
