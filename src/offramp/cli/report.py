"""What early exits saved, in words and as JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from offramp.types.output import Output


def output_json(output: Output, seconds: float) -> dict[str, Any]:
    """An output as plain values. `seconds` is how long the whole call took."""
    return {
        "text": output.text,
        "tokens": list(output.token_ids),
        "exit_layers": list(output.exit_layers),
        "confidences": list(output.confidences),
        "logprobs": None if output.logprobs is None else [[list(pair) for pair in at] for at in output.logprobs],
        "finish_reason": output.finish_reason,
        "index": output.index,
        "prompt_tokens": len(output.prompt_token_ids),
        "seconds": seconds,
        "report": output.report.to_dict(),
    }


def report_lines(outputs: Sequence[Output], seconds: float) -> list[str]:
    """The exit report of some outputs that took `seconds` together, in one to four lines."""
    reports = [output.report for output in outputs]
    tokens = sum(len(output.token_ids) for output in outputs)
    if not tokens:
        return ["no tokens"]
    depth = reports[0].depth
    mean = sum(sum(output.exit_layers) for output in outputs) / tokens
    lines = [f"{tokens} tokens, {tokens / max(seconds, 1e-9):.1f} tokens/s, mean exit layer {mean:.1f} of {depth}"]
    if any(report.exits is not None for report in reports):
        kinds = {"run": "layers_run", "filled": "layers_filled", "skipped": "layers_skipped"}
        sums = {kind: sum(sum(getattr(report, name)) for report in reports) for kind, name in kinds.items()}
        layers = max(sum(sums.values()), 1)
        left: Counter[int] = Counter()
        for report in reports:
            left.update(report.exit_histogram)
        shares = ", ".join(f"{100 * count / layers:.0f}% {kind}" for kind, count in sums.items())
        lines.append(f"layers: {shares}; tokens by exit layer: {', '.join(f'{e}: {left[e]}' for e in sorted(left))}")
    drafts = sum(report.drafts_proposed for report in reports)
    if drafts:
        accepted = sum(report.drafts_accepted for report in reports)
        lines.append(f"drafts: {drafts} proposed, {accepted} accepted ({100 * accepted / drafts:.0f}%)")
    off = sum(report.switched_off for report in reports)
    if off:
        lines.append(f"exits were switched off for {off} of {len(reports)} outputs: they cost more than they saved")
    return lines
