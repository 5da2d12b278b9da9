"""How far a stage has come: tokens, rate, and time to go."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

Update = Callable[[int, int, str], None]
"""Takes how much is done, of how much, and a phrase that says so."""


class Meter:
    """Reports one stage. `start` tokens were there before, and say nothing about the rate."""

    def __init__(
        self,
        update: Update,
        stage: str,
        total: int,
        *,
        start: int = 0,
        unit: str = "tokens",
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._update, self._stage, self.total, self._start, self._unit = update, stage, total, start, unit
        self._clock, self._began = clock, clock()
        self.done = start

    @property
    def rate(self) -> float:
        """Units per second so far."""
        return (self.done - self._start) / max(self._clock() - self._began, 1e-9)

    def __call__(self, done: int, note: str = "") -> None:
        """Report `done`, which may be more than all; `note` is added to the line."""
        self.done = done
        rate = self.rate
        left = f", {duration((self.total - done) / rate)} to go" if rate > 0 and done < self.total else ""
        text = f"{self._stage}: {done:,} of {self.total:,} {self._unit}, {rate:,.0f}/s{left}"
        self._update(min(done, self.total), self.total, f"{text}, {note}" if note else text)


def duration(seconds: float) -> str:
    """`40 s`, `12 min` or `3.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
