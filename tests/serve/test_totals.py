"""Counts that go on over restarts, and do not jump where there was none."""

from __future__ import annotations

from dataclasses import replace

from offramp.serve.totals import EngineTotals
from tests.serve.test_metrics import STATS


def test_a_count_that_falls_is_another_process() -> None:
    totals = EngineTotals()
    totals.see(STATS)
    totals.see(replace(STATS, steps=2, output_tokens=3, exit_tokens={10: 3}))
    assert (totals["output_tokens"], totals["steps"]) == (53, 42) and totals.exit_tokens() == {10: 23, 30: 30}


def test_seconds_that_fall_are_not() -> None:
    totals = EngineTotals()
    totals.see(STATS)
    totals.see(replace(STATS, output_tokens=60, seconds={**STATS.seconds, "other": 0.5}))
    assert totals["output_tokens"] == 60 and totals.seconds()["other"] == 0.5
