"""The cost table: seconds of a call, by what it does and how many rows it has, measured at the context of the run.

Finer than the engine's own lines a + b * rows, because kernels change with the number of rows; between measured row
counts the price is interpolated.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from statistics import median

from offramp.engine.costs import CostModel
from offramp.llm.measure import time_call
from offramp.types.executor import Executor, ScoreRow, SeqRows
from offramp.types.sampling import SamplingParams

ROWS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 14, 16, 20, 24, 28, 32, 48, 64)
SWEEPS = 3
"""How often every call is timed before anything else, once to warm up not counted."""


@dataclass
class Curve:
    """Measured (rows, seconds), ascending in rows."""

    points: list[tuple[int, float]] = field(default_factory=list)

    def price(self, rows: float) -> float:
        """Seconds of a call with `rows` rows; beyond the last point, per row as there."""
        if rows <= 0 or not self.points:
            return 0.0
        place = bisect_left(self.points, (rows, 0.0))
        if place == len(self.points):
            last, seconds = self.points[-1]
            return seconds * rows / last
        right, above = self.points[place]
        if place == 0 or right == rows:
            return above
        left, below = self.points[place - 1]
        return below + (above - below) * (rows - left) / (right - left)


@dataclass
class PriceTable:
    """`segments[s]` prices `run_segment(s)`; `choices[k-1]` a choice at boundary k, the last one at the top."""

    segments: list[Curve]
    choices: list[Curve]

    def cost_model(self) -> CostModel:
        """The engine's own model, fitted to the same measurements, as it would be after running for a while."""
        model = CostModel(len(self.segments))
        for curves, lines in ((self.segments, model.segments), (self.choices, model.checks)):
            for curve, line in zip(curves, lines, strict=True):
                for rows, seconds in curve.points:
                    line.observe(rows, seconds)
        return model


class Pricing:
    """Times every call for row counts up to `most_rows`, each row a sequence with `context` tokens before it.

    Writes to the store from its first block on: nothing may be running. Neighbours take bandwidth for seconds,
    so `sweep` is called again between the runs that are priced, and prices are medians of all sweeps.
    """

    def __init__(self, executor: Executor, most_rows: int, context: int) -> None:
        shape = executor.shape
        per_row = context // shape.block_size + 1
        self._executor, self._context = executor, context
        self._tables = [list(range(row * per_row, (row + 1) * per_row)) for row in range(most_rows)]
        for blocks in self._tables:
            for segment in range(shape.num_segments):
                executor.run_segment(segment, [SeqRows(range(context), [0] * context, blocks)])
        self._counts = sorted({rows for rows in ROWS if rows < most_rows} | {most_rows})
        self._times: dict[tuple[str, int, int], list[float]] = {}
        self.sweep()
        self._times.clear()
        for _ in range(SWEEPS):
            self.sweep()

    def sweep(self) -> None:
        """Time every call once more."""
        for rows in self._counts:
            tables = self._tables[:rows]
            batch = [SeqRows((self._context,), (0,), blocks) for blocks in tables]
            scored = [ScoreRow(self._context, blocks, SamplingParams(), 0) for blocks in tables]
            for what, number, call in _calls(self._executor, batch, scored):
                self._times.setdefault((what, number, rows), []).append(time_call(self._executor, call))

    def table(self) -> PriceTable:
        """The prices so far."""
        top = range(self._executor.shape.num_segments)
        return PriceTable([self._curve("segment", s) for s in top], [self._curve("choice", k) for k in top])

    def _curve(self, what: str, number: int) -> Curve:
        return Curve([(rows, median(self._times[what, number, rows])) for rows in self._counts])


def _calls(
    executor: Executor, batch: Sequence[SeqRows], scored: Sequence[ScoreRow]
) -> list[tuple[str, int, Callable[[], object]]]:
    """Every segment and every choice, in the order of a climb: each finds the caches as it would then."""
    calls: list[tuple[str, int, Callable[[], object]]] = []
    for number in range(executor.shape.num_segments):
        calls.append(("segment", number, partial(executor.run_segment, number, batch)))
        calls.append(("choice", number, partial(executor.score, number + 1, scored, frozenset())))
    return calls
