"""The p-value: against exact arithmetic, and by the one property that makes it a p-value."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest

from offramp.calibrate.bounds import hoeffding_bentkus, log_binomial_tail, prompts_needed, risk_interval


def exact_tail(successes: int, count: int, chance: Fraction) -> Fraction:
    return sum(
        (math.comb(count, k) * chance**k * (1 - chance) ** (count - k) for k in range(successes + 1)), Fraction(0)
    )


@pytest.mark.parametrize("count", [1, 7, 60])
@pytest.mark.parametrize("chance", [Fraction(1, 100), Fraction(1, 3), Fraction(9, 10)])
def test_the_binomial_tail_is_the_sum_of_its_terms(count: int, chance: Fraction) -> None:
    for successes in range(count + 1):
        exact = float(exact_tail(successes, count, chance))
        assert math.exp(log_binomial_tail(successes, count, float(chance))) == pytest.approx(exact, rel=1e-10)


def test_the_tail_of_very_many_does_not_underflow() -> None:
    assert log_binomial_tail(0, 10**6, 0.5) == pytest.approx(10**6 * math.log(0.5))
    assert log_binomial_tail(10**6, 10**6, 1e-6) == 0


@pytest.mark.parametrize("risk", [0.02, 0.1, 0.5])
@pytest.mark.parametrize("count", [10, 150])
def test_where_the_risk_is_just_too_large_the_p_value_is_rarely_small(risk: float, count: int) -> None:
    """Losses that are 0 or 1: every outcome is counted, so this is exact. P[p <= u] <= u for every u."""
    chances = [math.comb(count, k) * risk**k * (1 - risk) ** (count - k) for k in range(count + 1)]
    p_values = [hoeffding_bentkus(k / count, count, risk) for k in range(count + 1)]
    for u in sorted(set(p_values)):
        assert math.fsum(c for c, p in zip(chances, p_values, strict=True) if p <= u) <= u + 1e-12


def test_it_is_the_smaller_of_both_bounds() -> None:
    mean, count, risk = 0.05, 200, 0.1
    entropy = mean * math.log(mean / risk) + (1 - mean) * math.log((1 - mean) / (1 - risk))
    bentkus = math.e * float(exact_tail(10, count, Fraction(1, 10)))
    assert hoeffding_bentkus(mean, count, risk) == pytest.approx(min(math.exp(-count * entropy), bentkus))
    assert hoeffding_bentkus(0.0, count, risk) == pytest.approx(0.9**count)


def test_a_mean_at_the_risk_shows_nothing() -> None:
    assert hoeffding_bentkus(0.1, 1000, 0.1) == hoeffding_bentkus(0.3, 1000, 0.1) == 1


@pytest.mark.parametrize(("risk", "delta"), [(0.01, 0.05), (0.3, 0.1), (0.9, 0.5)])
def test_fewer_prompts_than_needed_can_show_nothing(risk: float, delta: float) -> None:
    needed = prompts_needed(risk, delta)
    assert hoeffding_bentkus(0.0, needed, risk) <= delta
    assert needed == 1 or hoeffding_bentkus(0.0, needed - 1, risk) > delta


@pytest.mark.parametrize("risk", [0.0, 0.02, 0.3, 0.97, 1.0])
@pytest.mark.parametrize("count", [1, 30, 150])
def test_the_interval_rarely_misses(risk: float, count: int) -> None:
    """Losses that are 0 or 1: every outcome is counted, so this is exact."""
    missed = 0.0
    for k in range(count + 1):
        low, high = risk_interval(k / count, count, 0.1)
        assert 0 <= low <= k / count <= high <= 1
        missed += math.comb(count, k) * risk**k * (1 - risk) ** (count - k) * (not low <= risk <= high)
    assert missed <= 0.1 + 1e-12


def test_the_interval_ends_where_the_p_value_does() -> None:
    low, high = risk_interval(0.1, 500, 0.05)
    assert hoeffding_bentkus(0.1, 500, high) == pytest.approx(0.025, rel=1e-6)
    assert hoeffding_bentkus(0.9, 500, 1 - low) == pytest.approx(0.025, rel=1e-6)
    assert risk_interval(0.0, 500, 0.05)[0] == 0 and risk_interval(1.0, 500, 0.05)[1] == 1
