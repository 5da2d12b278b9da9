"""Figures of runs, against numbers that can be worked out by hand; when requests are due; agreement."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest

from offramp.bench.load.agreement import agreement
from offramp.bench.load.arrivals import Arrivals
from offramp.bench.load.figures import Wanted, figures
from offramp.bench.load.lines import lines
from offramp.bench.load.outcomes import Outcome
from offramp.errors import InvalidParameter

GOOD = [
    Outcome(10.0, 0.1, [0.1, 0.3], 0.5, "ab c", 4, 3),
    Outcome(11.0, 0.3, [0.2], 0.5, "x", 6, 2),
    Outcome(11.5, 0.2, [], 0.2, "y", 2, 1),
]
FAILED = Outcome(10.0, error="500: broken")


def told(**changes: Any) -> dict[str, Any]:
    made = {
        "num_layers": 10,
        "mean_depth": 4.0,
        "layers_run": 12,
        "layers_filled": 3,
        "layers_skipped": 15,
        "histogram": {"2": 2, "8": 1},
        "drafts_proposed": 0,
        "drafts_accepted": 0,
        "switched_off": False,
    }
    return {**made, **changes}


def test_figures_by_hand() -> None:
    made = figures([*GOOD, FAILED], 2.0, Wanted(percentiles=(50.0, 99.0)))
    assert (made["completed"], made["failed"]) == (3, 1)
    assert (made["total_input_tokens"], made["total_output_tokens"]) == (12, 6)
    assert (made["request_throughput"], made["output_throughput"], made["total_token_throughput"]) == (1.5, 3.0, 9.0)
    assert made["mean_ttft_ms"] == pytest.approx(200)
    assert made["median_tpot_ms"] == pytest.approx(200), "one token has no time between tokens"
    assert made["mean_itl_ms"] == pytest.approx(200)
    assert made["p50_e2el_ms"] == pytest.approx(500)
    assert (made["max_output_tokens_per_s"], made["max_concurrent_requests"]) == (3.0, 2)
    assert made["exit"] is None and made["request_goodput"] is None


def test_nothing_that_succeeded_is_zeros() -> None:
    made = figures([FAILED], 2.0, Wanted())
    assert made["output_throughput"] == made["mean_ttft_ms"] == made["p99_itl_ms"] == 0


def test_goodput_keeps_every_goal() -> None:
    assert figures(GOOD, 1.0, Wanted(goals={"ttft": 250, "e2el": 400}))["request_goodput"] == 1
    assert figures(GOOD, 1.0, Wanted(goals={"tpot": 199}))["request_goodput"] == 1


@pytest.mark.parametrize(
    "wanted",
    [{"metrics": ("ttft", "tpt")}, {"percentiles": (101.0,)}, {"goals": {"itl": 1.0}}, {"goals": {"ttft": -1}}],
)
def test_figures_that_do_not_exist(wanted: Any) -> None:
    with pytest.raises(InvalidParameter):
        Wanted(**wanted)


def test_exits_are_summed_over_answers() -> None:
    GOOD[0].exit = told()
    GOOD[1].exit = told(mean_depth=10.0, layers_run=10, layers_filled=0, layers_skipped=0, histogram={"10": 1})
    made = figures(GOOD, 1.0, Wanted())["exit"]
    assert made["mean_exit_layer"] == (3 * 4 + 10) / 4
    assert (made["layers_run"], made["layers_filled"], made["layers_skipped"]) == (22 / 40, 3 / 40, 15 / 40)


def test_the_table_is_as_wide_as_that_of_vllm() -> None:
    result = figures(GOOD, 2.0, Wanted()) | {
        "client": {"cpu_seconds": 0.1},
        "max_concurrency": 4,
        "request_rate": "inf",
    }
    result["agreement"] = agreement(GOOD, GOOD, None)
    table = list(lines(result))
    assert table[0] == "============ Serving Benchmark Result ============"
    assert "Mean TTFT (ms):                          200.00" in table
    assert "P99 ITL (ms):                            298.00" in table
    assert "Maximum request concurrency:             4" in table
    assert "Equal answers (%):                       100.00" in table
    assert not any("rate configured" in line for line in table)


def test_agreement_counts_up_to_the_first_difference() -> None:
    reference = [Outcome(0.0, text="ab d"), Outcome(0.0, text="x"), Outcome(0.0, error="gone")]
    made = agreement(GOOD, reference, None)
    assert made == {"requests": 2, "equal_requests": 0.5, "equal_tokens": 4 / 5, "unit": "character"}


def test_a_shorter_answer_agrees_as_far_as_it_goes() -> None:
    made = agreement([Outcome(0.0, text="ab")], [Outcome(0.0, text="abcd")], None)
    assert (made["equal_requests"], made["equal_tokens"]) == (0, 0.5)


@pytest.mark.parametrize("burstiness", [0.3, 1.0, 8.0, math.inf])
def test_a_steady_rate_is_kept(burstiness: float) -> None:
    due = Arrivals(20.0, burstiness).due(200, seed=3)
    assert due == sorted(due)
    assert due[-1] == pytest.approx(10.0)
    assert due == Arrivals(20.0, burstiness).due(200, seed=3)


def test_requests_without_a_rate_are_due_at_once() -> None:
    assert Arrivals().due(3, 0) == [0, 0, 0]


@pytest.mark.parametrize("ramp", ["linear", "exponential"])
def test_a_ramp_gets_faster(ramp: str) -> None:
    due = Arrivals(math.inf, math.inf, ramp, 1, 10).due(50, 0)
    gaps = [b - a for a, b in pairwise(due)]
    assert gaps == sorted(gaps, reverse=True)
    assert due[0] == 1 and gaps[-1] == pytest.approx(0.1)


@pytest.mark.parametrize(
    "given",
    [
        {"rate": 0},
        {"burstiness": -1},
        {"ramp": "cubic", "start": 1, "end": 2},
        {"ramp": "linear"},
        {"start": 1},
        {"ramp": "linear", "start": 5, "end": 2},
        {"ramp": "linear", "start": 1, "end": 2, "rate": 3.0},
    ],
)
def test_rates_that_make_no_sense(given: Any) -> None:
    with pytest.raises(InvalidParameter):
        Arrivals(**given)
