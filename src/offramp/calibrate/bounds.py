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


def log_binomial_tail(successes: int, count: int, chance: float) -> float:
    """log P[Bin(count, chance) <= successes], summed in logarithms so that no term underflows."""
    log_yes, log_no = math.log(chance), math.log1p(-chance)
    terms = [
        math.lgamma(count + 1) - math.lgamma(k + 1) - math.lgamma(count - k + 1) + k * log_yes + (count - k) * log_no
        for k in range(min(successes, count) + 1)
    ]
    largest = max(terms)
    return min(0.0, largest + math.log(math.fsum(math.exp(term - largest) for term in terms)))


def prompts_needed(risk: float, delta: float) -> int:
    """The fewest losses that can show `risk` at confidence 1 - `delta`: so many, all of them zero."""
    return math.ceil(math.log(delta) / math.log1p(-risk))


def _relative_entropy(a: float, b: float) -> float:
    yes = a * math.log(a / b) if a else 0.0
    return yes + (1 - a) * math.log((1 - a) / (1 - b))
