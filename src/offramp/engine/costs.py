"""What a step costs: cost(segment, rows) = a + b * rows seconds, measured at start-up and refreshed while running.

An encoder's rows are the tokens of its sources.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass
class Line:
    """cost = a + b * rows, fitted by least squares over observations that fade (the newest counts fully)."""

    a: float = 0.0
    b: float = 0.0
    fade: float = 0.98
    _weight: float = 0.0
    _rows: float = 0.0
    _rows2: float = 0.0
    _cost: float = 0.0
    _rows_cost: float = 0.0

    def price(self, rows: float) -> float:
        """Seconds for a call with this many rows; no call, no cost."""
        return self.a + self.b * rows if rows > 0 else 0.0

    def observe(self, rows: int, seconds: float) -> None:
        """Take a measured call into account."""
        fade = self.fade
        self._weight = weight = fade * self._weight + 1.0
        self._rows = fade * self._rows + rows
        self._rows2 = fade * self._rows2 + rows * rows
        self._cost = fade * self._cost + seconds
        self._rows_cost = fade * self._rows_cost + rows * seconds
        mean_rows, mean_cost = self._rows / weight, self._cost / weight
        spread = self._rows2 / weight - mean_rows * mean_rows
        b = self.b
        if spread > 1e-9 * (1 + mean_rows * mean_rows):
            b = max((self._rows_cost / weight - mean_rows * mean_cost) / spread, 0.0)
        elif not b and not self.a:
            b = 0.1 * mean_cost / mean_rows
        self.b = b = min(b, mean_cost / mean_rows)
        self.a = mean_cost - b * mean_rows


class CostModel:
    """Prices of encoding, of advancing a segment, of a check at an exit or a choice at the top, and of passing tokens.

    `encoder` prices `encode` by tokens; without an encoder nobody asks. `segments[s]` prices `run_segment(s)`,
    `checks[k-1]` scoring at boundary k (the last one is the top), `passes[k-1]` passing from boundary k to the top.
    """

    def __init__(self, num_segments: int) -> None:
        self.encoder = Line()
        self.segments = [Line() for _ in range(num_segments)]
        self.checks = [Line() for _ in range(num_segments)]
        self.passes = [Line() for _ in range(num_segments - 1)]

    @classmethod
    def from_layers(cls, layers_at: Sequence[int]) -> CostModel:
        """One unit per layer and call plus a tenth per row; checks one unit; passes a twentieth of a layer per row.

        An encoder is taken to be as deep as the model.
        """
        model = cls(len(layers_at) - 1)
        depth = layers_at[-1]
        for s, line in enumerate(model.segments):
            size = layers_at[s + 1] - layers_at[s]
            line.a, line.b = 1.0 * size, 0.1 * size
        model.encoder.a, model.encoder.b = 1.0 * depth, 0.1 * depth
        for line in model.checks:
            line.a, line.b = 1.0, 0.1
        for k, line in enumerate(model.passes, start=1):
            line.b = 0.05 * (depth - layers_at[k])
        return model

    def climb(self, segments: Iterable[int], rows: float) -> float:
        """Price of taking rows through segments."""
        total = 0.0
        for s in segments:
            total += self.segments[s].price(rows)
        return total

    def full_depth(self, rows: float) -> float:
        """Price of one token for each of `rows` sequences at full depth."""
        return self.climb(range(len(self.segments)), rows) + self.checks[-1].price(rows)
