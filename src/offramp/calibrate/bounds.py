"""The Hoeffding-Bentkus p-value of Learn-then-Test (Angelopoulos et al. 2021, proposition 1; Bates et al. 2021)."""

from __future__ import annotations

import math


def hoeffding_bentkus(mean: float, count: int, risk: float) -> float:
    """A p-value of "the expected loss is above `risk`", from `count` independent losses in [0, 1] with this mean.

    It is the smaller of Hoeffding's exp(-n h(mean, risk)), where h is the relative entropy of two coins, and Bentkus'
    e P[Bin(n, risk) <= ceil(n mean)]. `risk` is inside (0, 1).
    """
    if mean >= risk:
        return 1.0
    hoeffding = -count * _relative_entropy(mean, risk)
    # A sum of shares may come out a rounding error above the whole number it is.
    bentkus = 1.0 + log_binomial_tail(math.ceil(count * mean - 1e-9), count, risk)
    return math.exp(min(hoeffding, bentkus, 0.0))


def risk_interval(mean: float, count: int, delta: float) -> tuple[float, float]:
    """An interval that holds the expected loss with probability 1 - `delta`, from `count` losses with this mean.

    Outside lie the risks that `hoeffding_bentkus` rules out: that the risk is larger, or, of 1 - loss, smaller, each at
    `delta` / 2.
    """
    return 1.0 - _largest_risk(1.0 - mean, count, delta / 2), _largest_risk(mean, count, delta / 2)


def _largest_risk(mean: float, count: int, delta: float) -> float:
    low, high = mean, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        ruled_out = low < middle < high and hoeffding_bentkus(mean, count, middle) <= delta
        low, high = (low, middle) if ruled_out else (middle, high)
    return high


def log_binomial_tail(successes: int, count: int, chance: float) -> float:
    """log P[Bin(count, chance) <= successes], summed in proportion to the last term so that none underflows."""
    last = min(successes, count)
    ratio_of_chances = (1.0 - chance) / chance
    total = term = 1.0
    for k in range(last, 0, -1):
        term *= k / (count - k + 1) * ratio_of_chances
        total += term
        if term < 1e-18 * total:
            break  # it is beyond the largest, where they only fall
    ways = math.lgamma(count + 1) - math.lgamma(last + 1) - math.lgamma(count - last + 1)
    return min(0.0, ways + last * math.log(chance) + (count - last) * math.log1p(-chance) + math.log(total))


def prompts_needed(risk: float, delta: float) -> int:
    """The fewest losses that can show `risk` at confidence 1 - `delta`: so many, all of them zero."""
    return math.ceil(math.log(delta) / math.log1p(-risk))


def _relative_entropy(a: float, b: float) -> float:
    yes = a * math.log(a / b) if a else 0.0
    return yes + (1 - a) * math.log((1 - a) / (1 - b))
