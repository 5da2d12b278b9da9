"""Prices, and stretches of decoding priced by hand."""

from __future__ import annotations

import pytest

from offramp.bench import prices
from offramp.bench.exit_results import ExitCell, shares
from offramp.bench.exit_traces import ExitTrace
from offramp.bench.prices import SWEEPS, Curve, PriceTable, Pricing
from offramp.bench.windows import Window, most_tokens, run_window
from offramp.config import Batching
from offramp.engine.costs import CostModel
from tests.bench.toys import toy_executor, toy_input

LAYERS_AT = (0, 2, 4, 6)


def table() -> PriceTable:
    """Segments cost 10, 20 and 30 for a call and 1 a row; choices 1, 2 and 3, whatever the rows."""
    segments = [Curve([(1, base + 1.0), (101, base + 101.0)]) for base in (10.0, 20.0, 30.0)]
    return PriceTable(segments, [Curve([(1, cost)]) for cost in (1.0, 2.0, 3.0)])


def window(**changes: object) -> Window:
    """Four tokens of two sequences: three left at layer 2, two of them together; one went to the top."""
    values: dict[str, object] = {
        "tokens": 4,
        "seconds": 2.0,
        "split": {"layers": 1.0, "checks": 0.25, "fill": 0.15, "top": 0.5},
        "runs": {(0, 2): 2, (1, 1): 1, (2, 1): 1},
        "choices": {(1, 2): 1, (1, 1): 1, (3, 1): 1},
        "wanted": {2: 3, 6: 1},
    }
    return Window(**{**values, **changes})  # type: ignore[arg-type]


def test_a_price_lies_between_the_measured_ones() -> None:
    curve = Curve([(1, 5.0), (2, 6.0), (4, 10.0)])
    assert [curve.price(rows) for rows in (0, 1, 2, 3, 4, 8)] == [0.0, 5.0, 6.0, 8.0, 10.0, 20.0]


def test_a_plan_is_priced_call_by_call() -> None:
    # Layers: 2 x 12 + 21 + 31; the top 3; exits 1 for each of two calls.
    assert window().priced(table(), exit_choices=False) == pytest.approx((24 + 21 + 31 + 3) / 4)
    assert Window.priced(
        window(choices={(1, 2): 1, (1, 1): 1, (3, 1): 1}),
        PriceTable(table().segments, [Curve([(1, 1.0), (2, 1.0)]), Curve([(1, 2.0)]), Curve([(1, 3.0)])]),
        exit_choices=True,
    ) == pytest.approx((24 + 21 + 31 + 3 + 2) / 4)


def test_a_full_batch_is_what_the_trace_asks_for() -> None:
    full = PriceTable(table().segments, [Curve([(1, 1.0), (2, 1.0)])] * 2 + [Curve([(1, 3.0), (2, 4.0)])])
    # Each of 4 tokens costs half of segment 0 with two rows; one more goes through the rest and the top.
    assert window().priced_at_full_batch(full, LAYERS_AT, 2) == pytest.approx((4 * 6 + 11 + 16 + 2) / 4)


def test_a_cell_puts_the_numbers_together() -> None:
    off = window(seconds=4.0, runs={(0, 2): 2, (1, 2): 2, (2, 2): 2}, choices={(3, 1): 2}, wanted={6: 4})
    cell = ExitCell("t", 2, "depth")
    cell.add(off, window(), table(), LAYERS_AT)
    priced = (2 * (12 + 22 + 32) + 6) / (24 + 21 + 31 + 3)
    assert cell.speedup == [2.0] and cell.off_ms == [1000.0]
    assert cell.priced_speedup == [pytest.approx(priced)]
    assert cell.realisation == [pytest.approx(2.0 / priced)]
    assert cell.realisation_with_choices[0] > cell.realisation[0]
    best = window().priced_at_full_batch(table(), LAYERS_AT, 2)
    assert cell.efficiency == [pytest.approx(best / ((24 + 21 + 31 + 3) / 4))]
    assert cell.split["python"] == pytest.approx(0.05)
    assert shares(window()) == pytest.approx(
        {"layers": 0.5, "checks": 0.125, "fill": 0.075, "top": 0.25, "python": 0.05}
    )


def run(policy: Batching, trace: ExitTrace | None, batch: int = 3, new_tokens: int = 6) -> Window:
    prompts = toy_input().prompts(batch, 5)
    return run_window(toy_executor(), CostModel.from_layers(LAYERS_AT), policy, prompts, trace, new_tokens)


def test_without_exits_every_token_runs_every_segment() -> None:
    seen = run("compact", None)
    assert (seen.tokens, seen.runs) == (18, {(0, 3): 6, (1, 3): 6, (2, 3): 6})
    assert seen.choices == {(3, 3): 6} and seen.wanted == {6: 18}
    assert 0 < sum(seen.split.values()) < seen.seconds


@pytest.mark.parametrize("policy", ["lockstep", "compact", "depth"])
def test_when_all_leave_at_an_exit_nothing_above_runs(policy: Batching) -> None:
    seen = run(policy, ExitTrace("all", 6, (2, 4), 1.0, 4))
    rows = {segment: sum(count * n for (s, n), count in seen.runs.items() if s == segment) for segment in range(3)}
    assert rows[0] == rows[1] == seen.tokens == 18 and rows[2] == 0
    assert seen.wanted == {4: 18} and {k for k, _ in seen.choices} == {2}


def test_rows_leave_each_where_its_trace_says() -> None:
    trace = ExitTrace("some", 6, (2, 4), 0.5, 2)
    seen = run("compact", trace, batch=4, new_tokens=10)
    top = sum(count * rows for (k, rows), count in seen.choices.items() if k == 3)
    assert top == seen.wanted[6] and 0 < seen.wanted[2] == 40 - top


def test_a_sequence_that_fills_its_room_ends_the_window() -> None:
    # One row leaves early for ever, the other never: the first is far ahead before the window would be over.
    outputs = ((2,) * 500, (6,) * 500)
    seen = run("depth", ExitTrace("far", 6, (2, 4), recorded=outputs), batch=2, new_tokens=6)
    assert 0 < seen.tokens <= 12
    assert most_tokens(6) > 6


def test_prices_of_an_executor() -> None:
    executor = toy_executor(num_blocks=20)
    found = Pricing(executor, 4, 10).table()
    assert len(found.segments) == len(found.choices) == 3
    for curve in (*found.segments, *found.choices):
        assert [rows for rows, _ in curve.points] == [1, 2, 3, 4]
        assert all(seconds > 0 for _, seconds in curve.points)
    model = found.cost_model()
    assert model.segments[0].price(4) > 0 and model.full_depth(2) > 0


def test_a_price_is_the_median_of_all_sweeps(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = iter([9.0, *[2.0] * SWEEPS, *[1.0] * (SWEEPS + 1)])  # one to warm up, some at first, some later
    now = [0.0]
    monkeypatch.setattr(prices, "time_call", lambda executor, call: now[0])
    sweep = Pricing.sweep

    def next_sweep(self: Pricing) -> None:
        now[0] = next(taken)
        sweep(self)

    monkeypatch.setattr(Pricing, "sweep", next_sweep)
    pricing = Pricing(toy_executor(num_blocks=20), 2, 10)
    assert pricing.table().segments[0].price(2) == 2.0
    for _ in range(SWEEPS + 1):
        pricing.sweep()
    assert pricing.table().choices[-1].price(1) == 1.0
