"""`/metrics`: what the server and its engine count, as text that Prometheus reads. docs/metrics.md lists the names."""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate

from prometheus_client import generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from offramp.errors import EngineDown
from offramp.serve.memory import resident_bytes
from offramp.serve.observe import Ended
from offramp.serve.protocol import EngineClient, EngineInfo, EngineStats
from offramp.serve.risks import ShadowRisks
from offramp.serve.totals import EngineTotals

LOOK_SECONDS = 5.0
"""How long `/metrics` waits for the engine before it says that the engine is not up."""

TTFT = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80, 160)
ITL = (0.001, 0.0025, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.5, 1, 2.5, 5)
E2E = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80, 160, 320, 640)
TOKENS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 50_000, 100_000)

HISTOGRAMS = {
    "time_to_first_token_seconds": (TTFT, "From a request's arrival to its first token."),
    "inter_token_latency_seconds": (ITL, "Between two tokens of an output."),
    "e2e_request_latency_seconds": (E2E, "From a request's arrival to its end."),
    "request_prompt_tokens": (TOKENS, "Prompt tokens of a request."),
    "request_generation_tokens": (TOKENS, "Output tokens of a request."),
}
"""Histograms of requests: upper bounds of their buckets, and what is counted."""

COUNTERS = {
    "prefix_cache_queries": ("prompt_tokens", "Prompt tokens looked up in the prefix cache."),
    "prefix_cache_hits": ("cached_prompt_tokens", "Prompt tokens found in the prefix cache."),
    "prompt_tokens": ("prompt_tokens", "Prompt tokens, cached ones included."),
    "generation_tokens": ("output_tokens", "Output tokens."),
    "preemptions": ("preemptions", "Sequences that gave their KV blocks back and began anew."),
    "engine_steps": ("steps", "Steps of the engine."),
    "layers_run": ("layers_run", "Layers computed for tokens of finished outputs."),
    "layers_filled": ("layers_filled", "Layers of which only K and V were projected, for tokens of finished outputs."),
    "layers_skipped": ("layers_skipped", "Layers left out for tokens of finished outputs."),
    "drafts_proposed": ("drafts_proposed", "Tokens chosen at exits to be verified."),
    "drafts_accepted": ("drafts_accepted", "Drafts that the top agreed with."),
}
"""Counters of the engine: the field of its totals, and what is counted."""

RISKS = {
    "shadow_risk_ratio": (
        "measured",
        "Share of an output's tokens that full depth would choose otherwise, on average.",
    ),
    "shadow_risk_low_ratio": ("low", "Lower end of the 95% interval for its expectation."),
    "shadow_risk_high_ratio": ("high", "Upper end of the 95% interval for its expectation."),
    "shadow_risk_samples": ("samples", "Outputs that this rests on, the latest."),
    "shadow_risk_exceeded": ("exceeded", "1 where the interval lies above the risk that the dial promises."),
}
"""Gauges of shadow samples: the field of a `Risk`, and what it is."""

Value = float | Mapping[str, float]
"""A number, or one for each value of a further label."""


class Tally:
    """A histogram: how many values lie at or below each of `bounds`."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds, self.sum = bounds, 0.0
        self._counts = [0] * (len(bounds) + 1)

    def add(self, value: float) -> None:
        """Count a value."""
        self._counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def buckets(self) -> list[tuple[str, float]]:
        """(upper bound, values at or below it), as Prometheus has them."""
        return _buckets(self.bounds, self._counts)


class Metrics:
    """Everything that `/metrics` tells about one model.

    The HTTP side reports its requests with `started` and `finished`; what the engine counts is asked of it whenever the
    page is rendered, and goes on over restarts of its process.
    """

    def __init__(self, model_name: str, shadow: ShadowRisks | None = None) -> None:
        self._model, self._shadow = model_name, shadow
        self.in_flight = 0
        self._outcomes: Counter[str] = Counter()
        self._switched_off = 0
        self._tallies = {name: Tally(bounds) for name, (bounds, _) in HISTOGRAMS.items()}
        self._totals = EngineTotals()

    def started(self) -> None:
        """A request has come in. Each is to be reported as `finished`, however it ends."""
        self.in_flight += 1

    def finished(self, ended: Ended) -> None:
        """A request has ended."""
        self.in_flight -= 1
        self._outcomes[ended.outcome] += 1
        self._switched_off += ended.report is not None and ended.report.switched_off
        values: dict[str, Sequence[float]] = {
            "time_to_first_token_seconds": [] if ended.ttft is None else [ended.ttft],
            "inter_token_latency_seconds": ended.itl,
            "e2e_request_latency_seconds": [ended.seconds],
            "request_prompt_tokens": [ended.prompt_tokens],
            "request_generation_tokens": [ended.output_tokens],
        }
        for name, some in values.items():
            for value in some:
                self._tallies[name].add(value)

    def observe(self, stats: EngineStats) -> None:
        """A look at the engine that was made for another reason. The more there are, the less is lost when it dies."""
        self._totals.see(stats)

    async def render(self, client: EngineClient) -> bytes:
        """The page, in version 0.0.4 of the format. An engine that is not there costs its gauges, nothing else."""
        try:
            stats = await asyncio.wait_for(client.stats(), LOOK_SECONDS)
        except (EngineDown, asyncio.TimeoutError):
            stats = None
        if stats is not None:
            self.observe(stats)
        return generate_latest(_Page([*self._requests(), *self._engine(client.info, stats), *self._risks()]))

    def _requests(self) -> Iterator[Metric]:
        """What the HTTP side knows."""
        yield self._gauge("requests_in_flight", "Requests that were taken and have not ended.", self.in_flight)
        yield self._counter("requests", "Requests that have ended.", self._outcomes, "outcome")
        words = "Requests whose exits the profitability switch turned off."
        yield self._counter("exits_switched_off", words, self._switched_off)
        for name, tally in self._tallies.items():
            yield self._histogram(name, HISTOGRAMS[name][1], tally.buckets(), tally.sum)

    def _engine(self, info: EngineInfo | None, stats: EngineStats | None) -> Iterator[Metric]:
        """What the engine has counted, and how it is now; `stats` is None where it cannot be asked."""
        yield self._gauge("engine_up", "Whether the engine answers.", stats is not None)
        running, waiting = (stats.running, stats.waiting) if stats else (0, 0)
        yield self._gauge("num_requests_running", "Outputs in the engine's batch.", running)
        yield self._gauge("num_requests_waiting", "Outputs that wait for a place in the batch.", waiting)
        used = stats.kv_used_blocks / max(1, stats.kv_total_blocks) if stats else 0.0
        yield self._gauge("kv_cache_usage_ratio", "Share of KV blocks in use, 0 to 1.", used)
        used = stats.source_used_blocks / max(1, stats.source_total_blocks) if stats else 0.0
        yield self._gauge("source_store_usage_ratio", "The same of an encoder's sources.", used)
        memory = {"server": resident_bytes(), "engine": stats.rss_bytes if stats else None}
        known = {process: size for process, size in memory.items() if size is not None}
        yield self._gauge("process_resident_memory_bytes", "Memory in use.", known, "process")

        totals = self._totals
        yield self._counter("engine_restarts", "Times that the engine's process was started again.", totals.restarts)
        for name, (field, words) in COUNTERS.items():
            yield self._counter(name, words, totals[field])
        words = "Time of the engine's process, by what it was spent on."
        yield self._counter("time_seconds", words, totals.seconds(), "what")

        tokens = totals.exit_tokens()
        layers = sorted({*tokens, *((*info.exit_layers, info.num_layers) if info else ())})
        counts = [tokens.get(layer, 0) for layer in layers]
        depths = sum(layer * count for layer, count in zip(layers, counts, strict=True))
        words = "Layer that proposed an output token; the last bucket is the top."
        yield self._histogram("exit_depth", words, _buckets(layers, [*counts, 0]), depths)

    def _risks(self) -> Iterator[Metric]:
        """What shadow samples say."""
        outcomes, risks = (self._shadow.outcomes, self._shadow.risks) if self._shadow else ({}, {})
        yield self._counter("shadow_requests", "Requests drawn for rescoring at full depth.", outcomes, "outcome")
        for name, (field, words) in RISKS.items():
            values = {label: float(getattr(risk, field)) for label, risk in risks.items()}
            yield self._gauge(name, words, values, "exit")

    def _gauge(self, name: str, words: str, value: Value, label: str | None = None) -> Metric:
        return self._numbers(GaugeMetricFamily, name, words, value, label)

    def _counter(self, name: str, words: str, value: Value, label: str | None = None) -> Metric:
        return self._numbers(CounterMetricFamily, name, words, value, label)

    def _numbers(
        self,
        kind: type[GaugeMetricFamily] | type[CounterMetricFamily],
        name: str,
        words: str,
        value: Value,
        label: str | None,
    ) -> Metric:
        family = kind(f"offramp_{name}", words, labels=["model_name", *([label] if label else [])])
        for labels, one in self._samples(value):
            family.add_metric(labels, one)
        return family

    def _histogram(
        self, name: str, words: str, buckets: Sequence[tuple[str, float]], total: float
    ) -> HistogramMetricFamily:
        family = HistogramMetricFamily(f"offramp_{name}", words, labels=["model_name"])
        family.add_metric([self._model], buckets, total)
        return family

    def _samples(self, value: Value) -> list[tuple[list[str], float]]:
        """(label values, number): one, or one for each value of a further label."""
        if isinstance(value, Mapping):
            return [([self._model, label], one) for label, one in value.items()]
        return [([self._model], value)]


class _Page(Collector):
    """Metrics as they are at one moment."""

    def __init__(self, families: Sequence[Metric]) -> None:
        self._families = families

    def collect(self) -> Sequence[Metric]:
        return self._families


def _buckets(bounds: Sequence[float], counts: Sequence[float]) -> list[tuple[str, float]]:
    """Cumulative counts; `counts` has one more entry than `bounds`, for what lies above them."""
    names = [*(str(float(bound)) for bound in bounds), "+Inf"]
    return list(zip(names, accumulate(counts), strict=True))
