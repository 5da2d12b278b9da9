"""Exit traces to replay: made up (a share of tokens leaves at one exit, independently for each row) or recorded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from offramp.engine.trace import read_trace
from offramp.errors import TraceError

SHARES = (0.3, 0.6, 0.9)
RECORDED = Path(__file__).with_name("recorded.jsonl")
"""Answers of SmolLM2-135M-Instruct through its own norm and head after 10 and 20 of 30 layers; docs/benchmarks.md."""


@dataclass(frozen=True)
class ExitTrace:
    """Where tokens leave. `exits` are the model's exits; `recorded` holds the exit layers of recorded outputs.

    Without `recorded`, each token leaves at `layer` with probability `share` and at the top otherwise.
    """

    name: str
    depth: int
    exits: tuple[int, ...]
    share: float = 0.0
    layer: int = 0
    recorded: tuple[tuple[int, ...], ...] = ()

    def rows(self, row: int, length: int) -> tuple[int, ...]:
        """The exit layers of `length` tokens of sequence `row`: the same whenever it is asked."""
        if self.recorded:
            output = self.recorded[row % len(self.recorded)]
            # Sequences that share an output start at different places of it.
            shift = 7 * (row // len(self.recorded))
            return tuple(output[(shift + i) % len(output)] for i in range(length))
        draw = Random(f"{self.name}/{row}")
        return tuple(self.layer if draw.random() < self.share else self.depth for _ in range(length))


def default_exits(depth: int) -> tuple[int, ...]:
    """One third and two thirds of the depth."""
    return tuple(sorted({max(1, depth // 3), max(1, depth * 2 // 3)} - {depth}))


def made_up_traces(depth: int, exits: Sequence[int], shares: Sequence[float] = SHARES) -> list[ExitTrace]:
    """Each share at each exit."""
    return [
        ExitTrace(f"{100 * share:.0f}% at {layer}", depth, tuple(exits), share, layer)
        for layer in exits
        for share in shares
    ]


def shipped_trace(depth: int) -> ExitTrace | None:
    """A run that was recorded once, at the exits of this model; None where it has too few layers for two exits."""
    exits = default_exits(depth)
    trace = recorded_trace(RECORDED, 30)
    if len(exits) < len(trace.exits):
        return None
    here = dict(zip((*trace.exits, trace.depth), (*exits, depth), strict=True))
    return ExitTrace(
        "recorded", depth, exits, recorded=tuple(tuple([here[layer] for layer in row]) for row in trace.recorded)
    )


def recorded_trace(path: Path, depth: int) -> ExitTrace:
    """The trace that a run recorded.

    Raises:
        TraceError: it cannot be read, is empty, or is of a model with another depth, or its lines differ in exits.
    """
    outputs = [output for output in read_trace(path) if output["exit_layers"]]
    if not outputs:
        raise TraceError(
            f"trace `{path}` holds no tokens", hint="record one with `offramp generate --record-trace FILE`"
        )
    exits = tuple(outputs[0]["exits"])
    for output in outputs:
        if output["depth"] != depth or tuple(output["exits"]) != exits:
            raise TraceError(
                f"trace `{path}` is of a model with {output['depth']} layers and exits {list(output['exits'])}, "
                f"this one has {depth} layers and its first line exits {list(exits)}",
                hint="replay a trace with the model it was recorded with",
            )
        allowed = {*exits, depth}
        if stray := set(output["exit_layers"]) - allowed:
            raise TraceError(f"trace `{path}` leaves at layer {min(stray)}, which is none of its exits")
    return ExitTrace(path.name, depth, exits, recorded=tuple(tuple(output["exit_layers"]) for output in outputs))
