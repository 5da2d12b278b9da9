"""Confidence intervals: the bootstrap over prompts (Efron 1979)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

RESAMPLINGS = 2000
LEVEL = 0.95


class Interval(NamedTuple):
    """A value and the 95% interval around it."""

    value: float
    low: float
    high: float


def ratio(above: Sequence[float], below: Sequence[float] | None = None) -> Interval:
    """sum(above) / sum(below), an entry for each prompt; without `below`, the mean of `above`."""
    below = [1.0] * len(above) if below is None else below
    return _interval([above, below], lambda sums: sums[0] / sums[1])


def ratio_of_ratios(
    above: Sequence[float], below: Sequence[float], other_above: Sequence[float], other_below: Sequence[float]
) -> Interval:
    """`ratio(above, below)` over `ratio(other_above, other_below)`, entries of the same prompt drawn together."""
    return _interval([above, below, other_above, other_below], lambda sums: sums[0] / sums[1] * sums[3] / sums[2])


def _interval(columns: Sequence[Sequence[float]], statistic: Callable[[Floats], Floats]) -> Interval:
    """`statistic` takes sums [columns, ...] to values [...]. Its percentile interval over 2,000 fixed resamplings."""
    values = np.array(columns, dtype=np.float64)
    count = values.shape[1]
    drawn = np.random.default_rng(0).integers(count, size=(RESAMPLINGS, count))
    low, high = np.quantile(statistic(values[:, drawn].sum(-1)), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(statistic(values.sum(-1))), float(low), float(high))
