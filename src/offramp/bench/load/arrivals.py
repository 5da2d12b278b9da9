"""When requests are due: all at once, at a rate, or at one that changes."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from offramp.errors import InvalidParameter
from offramp.types.checks import check_integer, check_number, check_one_of

RAMPS = ("linear", "exponential")


@dataclass(frozen=True, slots=True)
class Arrivals:
    """Requests per second.

    Args:
        rate: infinity sends all at once.
        burstiness: times between requests follow a gamma distribution of this shape: 1 is a Poisson process, less comes
            in bursts, more is evener, infinity is even.
        ramp: None, or how the rate changes from the first request to the last, from `start` to `end`.
    """

    rate: float = math.inf
    burstiness: float = 1.0
    ramp: str | None = None
    start: int | None = None
    end: int | None = None

    def __post_init__(self) -> None:
        for name, value in (("request_rate", self.rate), ("burstiness", self.burstiness)):
            if value != math.inf:
                check_number(name, value, 0, math.inf, low_open=True)
        if self.ramp is None:
            if self.start is not None or self.end is not None:
                raise InvalidParameter("`--ramp-up-start-rps` and `--ramp-up-end-rps` need `--ramp-up-strategy`")
            return
        check_one_of("ramp_up_strategy", self.ramp, RAMPS)
        if self.rate != math.inf:
            raise InvalidParameter("`--request-rate` cannot stand beside `--ramp-up-strategy`", param="request_rate")
        if self.start is None or self.end is None:
            raise InvalidParameter("`--ramp-up-strategy` needs `--ramp-up-start-rps` and `--ramp-up-end-rps`")
        check_integer("ramp_up_start_rps", self.start, 1)
        check_integer("ramp_up_end_rps", self.end, self.start)

    def due(self, count: int, seed: int) -> list[float]:
        """Seconds from the start at which each of `count` requests is due.

        A steady rate is kept exactly: times that were drawn are scaled to end when they should.
        """
        rates = [self._rate_at(number / max(count - 1, 1)) for number in range(count)]
        if math.inf in rates:
            return [0.0] * count
        chance = np.random.default_rng(seed)
        gaps = [1 / rate if self.burstiness == math.inf else self._gap(chance, rate) for rate in rates]
        times = [float(time) for time in np.cumsum(gaps)]
        if self.ramp is None and times[-1] > 0:
            times = [time * (count / self.rate) / times[-1] for time in times]
        return times

    def _rate_at(self, progress: float) -> float:
        if self.ramp is None:
            return self.rate
        assert self.start is not None and self.end is not None
        if self.ramp == "linear":
            return self.start + (self.end - self.start) * progress
        return float(self.start * (self.end / self.start) ** progress)

    def _gap(self, chance: np.random.Generator, rate: float) -> float:
        return float(chance.gamma(self.burstiness, 1 / (rate * self.burstiness)))
