"""A run as the table that `vllm bench serve` prints; exits, agreement and the client's own cost come below."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from offramp.bench.load.figures import METRICS

WIDTH, NAME = 50, 40


def lines(result: Mapping[str, Any]) -> Iterator[str]:
    """The table of a result: what `figures` made, with `max_concurrency`, `request_rate`, `client`, `agreement`."""
    yield f"{' Serving Benchmark Result ':=^{WIDTH}}"
    for key, text in _HEAD.items():
        value = result.get(key)
        if value is not None and (key, value) != ("request_rate", "inf"):
            yield _row(text, value)
    for name, (short, title) in METRICS.items():
        if f"mean_{name}_ms" in result:
            yield f"{title:-^{WIDTH}}"
            for key, value in result.items():
                word, _, rest = key.partition("_")
                if rest == f"{name}_ms" and word != "std":
                    yield _row(f"{word.capitalize()} {short} (ms):", float(value))
    if result.get("exit"):
        yield from _exits(result["exit"])
    if result.get("agreement"):
        yield from _agreement(result["agreement"])
    yield f"{'Client':-^{WIDTH}}"
    yield _row("Processor time (% of a core):", 100 * result["client"]["cpu_seconds"] / result["duration"])
    yield "=" * WIDTH


_HEAD = {
    "completed": "Successful requests:",
    "failed": "Failed requests:",
    "max_concurrency": "Maximum request concurrency:",
    "request_rate": "Request rate configured (RPS):",
    "duration": "Benchmark duration (s):",
    "total_input_tokens": "Total input tokens:",
    "total_output_tokens": "Total generated tokens:",
    "request_throughput": "Request throughput (req/s):",
    "request_goodput": "Request goodput (req/s):",
    "output_throughput": "Output token throughput (tok/s):",
    "max_output_tokens_per_s": "Peak output token throughput (tok/s):",
    "max_concurrent_requests": "Peak concurrent requests:",
    "total_token_throughput": "Total token throughput (tok/s):",
}


def _exits(told: Mapping[str, Any]) -> Iterator[str]:
    yield f"{'Exits':-^{WIDTH}}"
    yield _row(f"Mean exit layer (of {told['num_layers']}):", float(told["mean_exit_layer"]))
    for what in ("run", "filled", "skipped"):
        yield _row(f"Layers {what} (%):", 100 * float(told[f"layers_{what}"]))
    if told["drafts_proposed"]:
        yield _row("Drafts accepted (%):", 100 * told["drafts_accepted"] / told["drafts_proposed"])
    if told["switched_off"]:
        yield _row("Requests with exits switched off:", told["switched_off"])


def _agreement(told: Mapping[str, Any]) -> Iterator[str]:
    yield f"{'Agreement with full depth':-^{WIDTH}}"
    yield _row("Requests compared:", told["requests"])
    for key, text in (("equal_requests", "Equal answers (%):"), ("equal_tokens", f"Equal {told['unit']}s (%):")):
        if told[key] is not None:
            yield _row(text, 100 * float(told[key]))


def _row(name: str, value: float) -> str:
    shown = f"{value:.2f}" if isinstance(value, float) else str(value)
    return f"{name:<{NAME}} {shown:<10}".rstrip()
