"""The cost model: a line fitted to measurements."""

from __future__ import annotations

import pytest

from offramp.engine.costs import CostModel, Line


def test_a_line_is_recovered_from_exact_measurements() -> None:
    line = Line()
    for rows in (1, 8, 1, 8, 3):
        line.observe(rows, 2.0 + 0.5 * rows)
    assert (line.a, line.b) == pytest.approx((2.0, 0.5))


def test_prices_are_never_negative() -> None:
    line = Line()
    for rows, seconds in ((1, 2.0), (8, 1.0), (4, 0.5)):
        line.observe(rows, seconds)
    assert line.a >= 0 and line.b >= 0


def test_new_measurements_outweigh_old_ones() -> None:
    line = Line()
    for factor in (1.0, 3.0):
        for _ in range(300):
            for rows in (1, 8):
                line.observe(rows, factor * (1.0 + rows))
    assert line.price(4) == pytest.approx(15.0, rel=0.01)


def test_no_rows_cost_nothing() -> None:
    assert Line(a=1.0, b=1.0).price(0) == 0


def test_estimates_from_layer_counts_follow_the_layers() -> None:
    costs = CostModel.from_layers((0, 10, 20, 30))
    assert costs.climb(range(3), 1) == pytest.approx(33.0)
    assert costs.full_depth(1) == pytest.approx(33.0 + 1.1)
    assert costs.passes[0].price(1) == pytest.approx(1.0)
