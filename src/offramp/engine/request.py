"""What is asked of the engine, and what it says about a token."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from offramp.engine.guide import Constraint, Guide
from offramp.types.exits import ExitParams
from offramp.types.output import FinishReason
from offramp.types.sampling import SamplingParams

StopCheck = Callable[[int], bool]
"""Told every accepted output token in order; true when the text so far contains a stop string."""


@dataclass(frozen=True)
class Request:
    """One prompt with its parameters. `exit` None runs every layer.

    `stop_checks` and `constraints` hold one per output; without constraints any token may be chosen.
    """

    prompt: Sequence[int]
    sampling: SamplingParams = field(default_factory=SamplingParams)
    exit: ExitParams | None = None
    stop_checks: Sequence[StopCheck] = ()
    constraints: Sequence[Constraint] = ()

    def guide(self, output: int) -> Guide | None:
        """What holds an output to its constraint, if it has one."""
        return Guide(self.constraints[output], len(self.prompt)) if self.constraints else None


class TokenEvent(NamedTuple):
    """A token that became output: `output_index` counts from 0; `exit_layer` is the layer that proposed it.

    `confidence` is the criterion's at that exit, None for a token chosen at the top.
    """

    sequence: int
    output_index: int
    token: int
    exit_layer: int
    confidence: float | None
    logprobs: tuple[tuple[int, float], ...] | None
    finish_reason: FinishReason | None
