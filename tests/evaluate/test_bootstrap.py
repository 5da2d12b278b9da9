"""Bootstrap intervals."""

from __future__ import annotations

import numpy as np
import pytest

from offramp.evaluate.bootstrap import ratio, ratio_of_ratios


def test_the_value_is_the_ratio_of_sums() -> None:
    assert ratio([1, 2, 3], [2, 2, 8]).value == 0.5
    assert ratio([1, 2, 6]).value == 3


def test_a_constant_has_no_width() -> None:
    assert ratio([2.0] * 9, [4.0] * 9) == (0.5, 0.5, 0.5)


def test_the_interval_of_a_mean_is_about_two_standard_errors() -> None:
    values = np.random.default_rng(0).exponential(size=400)
    found = ratio(values.tolist())
    error = values.std() / 20
    assert (found.value - found.low, found.high - found.value) == pytest.approx((1.96 * error, 1.96 * error), rel=0.15)


def test_95_of_100_intervals_hold_the_truth() -> None:
    state = np.random.default_rng(1)
    held = 0
    for _ in range(200):
        tokens = state.integers(1, 50, size=60)
        found = ratio(state.binomial(tokens, 0.3).tolist(), tokens.tolist())
        held += found.low <= 0.3 <= found.high
    assert 178 <= held <= 198


def test_what_prompts_share_cancels_in_a_ratio_of_ratios() -> None:
    """Twice as fast on every prompt is twice as fast, however much prompts differ."""
    state = np.random.default_rng(2)
    tokens, seconds = state.integers(1, 90, size=30).tolist(), state.exponential(size=30).tolist()
    halved = [second / 2 for second in seconds]
    assert ratio_of_ratios(tokens, halved, tokens, seconds) == pytest.approx((2, 2, 2))
    assert ratio(tokens, seconds).high > 1.3 * ratio(tokens, seconds).low
