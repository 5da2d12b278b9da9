"""Figures of a run, under the names that `vllm bench serve` gives them, and what exits did."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from offramp.bench.load.outcomes import Outcome
from offramp.errors import InvalidParameter, did_you_mean
from offramp.types.checks import check_number

METRICS = {
    "ttft": ("TTFT", "Time to First Token"),
    "tpot": ("TPOT", "Time per Output Token (excl. 1st token)"),
    "itl": ("ITL", "Inter-token Latency"),
    "e2el": ("E2EL", "End-to-end Latency"),
}
"""Name, abbreviation, title."""

GOALS = ("ttft", "tpot", "e2el")
"""What a request can be held to."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which figures are wanted.

    Args:
        metrics: names of `METRICS`.
        percentiles: of each of these.
        goals: milliseconds that a request may take, by names of `GOALS`; requests that keep all of them are goodput.
    """

    metrics: tuple[str, ...] = ("ttft", "tpot", "itl", "e2el")
    percentiles: tuple[float, ...] = (99.0,)
    goals: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in self.metrics:
            if name not in METRICS:
                raise InvalidParameter(
                    f"`--percentile-metrics` cannot hold `{name}`",
                    param="percentile_metrics",
                    hint=did_you_mean(name, METRICS),
                )
        for percentile in self.percentiles:
            check_number("metric_percentiles", percentile, 0, 100)
        for name, most in self.goals.items():
            if name not in GOALS:
                raise InvalidParameter(
                    f"`--goodput` cannot hold `{name}`", param="goodput", hint=did_you_mean(name, GOALS)
                )
            check_number("goodput", most, 0, math.inf)


def figures(outcomes: Sequence[Outcome], seconds: float, wanted: Wanted) -> dict[str, Any]:
    """All figures of a run that took `seconds`; times in milliseconds. Those of requests that failed are left out.

    `exit` is None where no answer tells of exits.
    """
    good = [outcome for outcome in outcomes if outcome.error is None]
    read, written = (sum(getattr(o, name) or 0 for o in good) for name in ("prompt_tokens", "output_tokens"))
    kept = sum(_keeps(outcome, wanted.goals) for outcome in good)
    per_second, together = _peaks(good)
    made: dict[str, Any] = {
        "duration": seconds,
        "completed": len(good),
        "failed": len(outcomes) - len(good),
        "total_input_tokens": read,
        "total_output_tokens": written,
        "request_throughput": len(good) / seconds,
        "request_goodput": kept / seconds if wanted.goals else None,
        "output_throughput": written / seconds,
        "total_token_throughput": (read + written) / seconds,
        "max_output_tokens_per_s": per_second,
        "max_concurrent_requests": together,
    }
    for name in wanted.metrics:
        made.update(_spread(name, _values(good, name), wanted.percentiles))
    return {**made, "exit": exit_figures(o.exit for o in good if o.exit is not None)}


def _values(good: Iterable[Outcome], name: str) -> list[float]:
    if name == "itl":
        return [gap for outcome in good for gap in outcome.itl]
    if name == "tpot":
        return [outcome.tpot for outcome in good if (outcome.output_tokens or 0) > 1]
    return [outcome.ttft if name == "ttft" else outcome.latency for outcome in good]


def _spread(name: str, values: list[float], percentiles: Iterable[float]) -> dict[str, float]:
    """Mean, median, standard deviation and percentiles in ms; 0 where there is nothing."""
    known = np.asarray(values or [0.0]) * 1000
    made = {
        f"mean_{name}_ms": float(known.mean()),
        f"median_{name}_ms": float(np.median(known)),
        f"std_{name}_ms": float(known.std()),
    }
    return {**made, **{f"p{p:g}_{name}_ms": float(np.percentile(known, p)) for p in percentiles}}


def _keeps(outcome: Outcome, goals: Mapping[str, float]) -> bool:
    values = {"ttft": outcome.ttft, "tpot": outcome.tpot, "e2el": outcome.latency}
    return all(1000 * values[name] <= most for name, most in goals.items())


def _peaks(good: Sequence[Outcome]) -> tuple[float, int]:
    """The most chunks with output that came within a second of the run, and the most requests open in one."""
    if not good:
        return 0.0, 0
    start = min(outcome.sent for outcome in good)
    chunks, open_ = Counter[int](), Counter[int]()
    for outcome in good:
        begun = outcome.sent - start
        chunks.update(int(at) for at in np.cumsum([begun + outcome.ttft, *outcome.itl]))
        open_.update(range(int(begun), int(begun + outcome.latency) + 1))
    return float(max(chunks.values())), max(open_.values())


def exit_figures(told: Iterable[Mapping[str, Any]]) -> dict[str, Any] | None:
    """What the objects `exit` of answers come to: see docs/server.md. Shares are of all layers of all output tokens."""
    some = list(told)
    if not some:
        return None
    tokens = [sum(one["histogram"].values()) for one in some]
    run, filled, skipped = (sum(one[f"layers_{what}"] for one in some) for what in ("run", "filled", "skipped"))
    layers = max(run + filled + skipped, 1)
    proposed, accepted = (sum(one[f"drafts_{what}"] for one in some) for what in ("proposed", "accepted"))
    depths = sum(one["mean_depth"] * count for one, count in zip(some, tokens, strict=True))
    return {
        "num_layers": some[0]["num_layers"],
        "mean_exit_layer": depths / max(sum(tokens), 1),
        "layers_run": run / layers,
        "layers_filled": filled / layers,
        "layers_skipped": skipped / layers,
        "drafts_proposed": proposed,
        "drafts_accepted": accepted,
        "switched_off": sum(bool(one["switched_off"]) for one in some),
    }
