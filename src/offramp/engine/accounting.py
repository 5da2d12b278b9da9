"""The report of an output: where the work for each of its tokens went."""

from __future__ import annotations

from offramp.engine.sequence import Sequence
from offramp.types.exits import ExitParams
from offramp.types.output import ExitReport


def report(sequence: Sequence) -> ExitReport:
    """The accounting of everything a sequence has output so far."""
    layers = sequence.layers_at
    depth = layers[-1]
    marks = sequence.marks[: sequence.accepted - sequence.prompt_length]
    run, filled = [], []
    for i, mark in enumerate(marks):
        position = sequence.prompt_length - 1 + i
        written = [s for s in range(sequence.top) if position < sequence.reached[s]]
        passed = [s for s in written if sequence.fills and s >= mark]
        run.append(sum(layers[s + 1] - layers[s] for s in written if s not in passed))
        filled.append(sum(layers[s + 1] - layers[s] for s in passed))
    left = [layers[mark] for mark in marks]
    return ExitReport(
        depth=depth,
        layers_run=tuple(run),
        layers_filled=tuple(filled),
        layers_skipped=tuple(depth - r - f for r, f in zip(run, filled, strict=True)),
        exit_histogram={layer: left.count(layer) for layer in sorted(set(left))},
        mean_exit_layer=sum(left) / len(left) if left else 0.0,
        drafts_proposed=sequence.drafts_proposed,
        drafts_accepted=sequence.drafts_accepted,
        top_passes=sequence.top_passes,
        replayed_tokens=sequence.replayed_tokens,
        cached_prompt_tokens=sequence.cached_prompt_tokens if sequence.source is None else 0,
        exits=None if sequence.exit is None else _summary(sequence.exit),
        switched_off=sequence.switched_off,
        encoded_tokens=sequence.encoded_tokens,
    )


def _summary(exit: ExitParams) -> dict[str, object]:
    threshold = exit.threshold
    return {
        "criterion": exit.criterion,
        "threshold": {str(k): v for k, v in threshold.items()} if isinstance(threshold, dict) else threshold,
        "min_layer": exit.min_layer,
        "kv": exit.kv,
    }
