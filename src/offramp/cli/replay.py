"""Replaying a recorded exit trace: every token leaves where it left then."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from offramp.errors import InvalidParameter, TraceError
from offramp.types.exits import ExitParams


@dataclass(frozen=True)
class ReplayedTrace:
    """The exits of the model that a trace was recorded on, and exit parameters for each of its outputs."""

    exits: list[int]
    params: list[ExitParams]

    @classmethod
    def read(cls, path: Path, dial: str | ExitParams, num_prompts: int, n: int) -> ReplayedTrace:
        """Read a trace; what `dial` says of the KV stays, its criterion gives way.

        Raises:
            TraceError: not a trace, or not one of as many outputs as there are prompts.
            InvalidParameter: several outputs per prompt, or a position of the dial beside the trace.
        """
        from offramp.engine.trace import read_trace

        if n > 1:
            raise InvalidParameter(f"a trace is replayed for one output per prompt, `n` is {n}", param="n")
        if isinstance(dial, str) and dial != "off":
            raise InvalidParameter(f"`--exit {dial}` and `--replay-trace` exclude each other", param="exit")
        outputs = read_trace(path)
        if len(outputs) != num_prompts:
            raise TraceError(f"trace `{path}` has {len(outputs)} outputs and there are {num_prompts} prompts")
        base = ExitParams() if isinstance(dial, str) else dial
        params = [
            replace(base, criterion="replay", threshold=1.0, min_layer=0, decay=None, options={"exit_layers": layers})
            for layers in (tuple(output["exit_layers"]) for output in outputs)
        ]
        return cls(outputs[0]["exits"], params)

    def check(self, exits: list[int], depth: int) -> None:
        """Make sure that a model with these exits can repeat the trace.

        Raises:
            TraceError: a token left at a layer that is no exit.
        """
        left = {layer for params in self.params for layer in params.options["exit_layers"]}
        unknown = sorted(left - {*exits, depth})
        if unknown:
            raise TraceError(
                f"in the trace a token left at layer {unknown[0]}, where the model has no exit",
                hint=f"its exits are {', '.join(map(str, exits)) or 'none'}; `--exits` chooses others",
            )
