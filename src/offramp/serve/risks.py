"""The risk that shadow samples measure, by position of the dial, and whether it is the one that was promised."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from offramp.calibrate.bounds import risk_interval
from offramp.serve.protocol import Rescored

WINDOW = 1000
"""The samples that count: so many, the latest ones. Traffic drifts, and calibrations take about as many prompts."""

DELTA = 0.05
"""The intervals' chance to miss."""


@dataclass(frozen=True, slots=True)
class Risk:
    """The mean loss of `samples` outputs and the interval for its expectation; `promised` None where nothing is."""

    measured: float
    low: float
    high: float
    samples: int
    promised: float | None

    @property
    def exceeded(self) -> bool:
        """Whether what was promised lies below the interval; where nothing may differ, one token is enough."""
        return self.promised is not None and (self.low if self.promised else self.measured) > self.promised


class ShadowRisks:
    """Takes what became of shadow samples. `write` is told, as an event, when a risk leaves what was promised, and when
    it is back."""

    def __init__(self, write: Callable[..., None]) -> None:
        self._write = write
        self._losses: dict[str, deque[float]] = {}
        self.outcomes: Counter[str] = Counter()
        self.risks: dict[str, Risk] = {}
        """By label."""

    def add(self, rescored: Rescored) -> None:
        """A sample is done with."""
        self.outcomes[rescored.outcome] += 1
        if rescored.outcome != "rescored":
            return
        position = rescored.label
        losses = self._losses.setdefault(position, deque(maxlen=WINDOW))
        losses.append(rescored.differ / rescored.tokens)
        before = self.risks.get(position)
        mean, count = fmean(losses), len(losses)
        self.risks[position] = risk = Risk(mean, *risk_interval(mean, count, DELTA), count, rescored.promised)
        if risk.exceeded != (before is not None and before.exceeded):
            self._tell(position, risk)

    def _tell(self, position: str, risk: Risk) -> None:
        fields: dict[str, Any] = {"exit": position, "measured": risk.measured, "low": risk.low, "high": risk.high}
        event, level = ("risk_exceeded", "warning") if risk.exceeded else ("risk_kept", None)
        self._write(event, level=level, promised=risk.promised, samples=risk.samples, **fields)
