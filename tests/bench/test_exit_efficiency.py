"""What the batching policies make of exits, by prices: no machine is timed."""

from __future__ import annotations

import pytest

from offramp.bench.exit_traces import SHARES, ExitTrace
from offramp.bench.prices import Curve, PriceTable
from offramp.bench.windows import run_window
from offramp.config import Batching
from tests.engine.idle import LAYERS, SHAPE, TEST, TOP, Idle, price


def prices(most: int) -> PriceTable:
    """For up to `most` rows."""

    def curve(units: float) -> Curve:
        return Curve([(rows, price(units, rows)) for rows in range(1, most + 1)])

    return PriceTable([curve(size) for size in LAYERS], [curve(TEST), curve(TEST), curve(TOP)])


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
