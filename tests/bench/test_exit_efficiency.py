"""What the batching policies make of exits, by prices: no machine is timed."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from offramp.bench.exit_traces import SHARES, ExitTrace
from offramp.bench.prices import Curve, PriceTable
from offramp.bench.windows import run_window
from offramp.config import Batching
from offramp.types.executor import Feature, ModelShape, Scored, ScoreRow, SeqRows

LAYERS = (10, 10, 10)
SHAPE = ModelShape(30, (10, 20), 64, 100_000, (), 16, 8192)
TOP = 8
"""The head at the top costs as much as this many layers, as in a small model with a large vocabulary."""


class Idle:
    """An executor that does nothing."""

    shape = SHAPE

    def run_segment(self, segment: int, batch: Sequence[SeqRows]) -> None:
        pass

    def pass_tokens(self, boundary: int, segments: range, batch: Sequence[SeqRows]) -> None:
        pass

    def score(
        self, boundary: int, rows: Sequence[ScoreRow], needs: frozenset[Feature], *, choose: bool = True
    ) -> list[Scored]:
        return [Scored(1, {}) for _ in rows]

    def features_at(self, boundary: int) -> frozenset[Feature]:
        return frozenset()

    def copy_blocks(self, pairs: Sequence[tuple[int, int]]) -> None:
        pass

    def synchronize(self) -> None:
        pass


def prices(most: int) -> PriceTable:
    """6 ms for a step of all layers and the top, and 1.05 ms for each row of it."""

    def curve(units: float) -> Curve:
        return Curve([(n, units / (sum(LAYERS) + TOP) * (6.0 + 1.05 * n) / 1000) for n in range(1, most + 1)])

    return PriceTable([curve(size) for size in LAYERS], [curve(1.33), curve(1.33), curve(TOP)])


def efficiency(policy: Batching, trace: ExitTrace, batch: int) -> float:
    table = prices(batch)
    prompts = [[1] * 64 for _ in range(batch)]
    window = run_window(Idle(), table.cost_model(), policy, prompts, trace, 128)
    return window.priced_at_full_batch(table, SHAPE.layers_at, batch) / window.priced(table, exit_choices=False)


@pytest.mark.parametrize("batch", [8, 16])
@pytest.mark.parametrize("layer", SHAPE.exit_layers)
@pytest.mark.parametrize("share", SHARES)
def test_depth_loses_little_to_half_empty_batches_and_less_than_compact(share: float, layer: int, batch: int) -> None:
    trace = ExitTrace(f"{share} at {layer}", 30, SHAPE.exit_layers, share, layer)
    depth, compact = efficiency("depth", trace, batch), efficiency("compact", trace, batch)
    assert depth >= 0.84
    assert depth >= compact - 0.005


def test_lockstep_hardly_ever_leaves() -> None:
    trace = ExitTrace("half", 30, SHAPE.exit_layers, 0.5, 10)
    assert efficiency("lockstep", trace, 8) < efficiency("compact", trace, 8) < efficiency("depth", trace, 8)
