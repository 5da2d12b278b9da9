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
"""Told every accepted output token in order; true where the output ends with it, as with a stop string."""


@dataclass(frozen=True)
class Request:
    """One prompt with its parameters. `exit` None runs every layer.

    `source` is what an encoder reads, nothing for a decoder-only model. Beside one, `prompt` is what the decoder has
    been given; left out, it is the model's decoder start token.

    `stop_checks` and `constraints` hold one per output; without constraints any token may be chosen. `prompt_logprobs`
    asks how likely the prompt's own tokens are at full depth, each with so many of the likeliest beside it: the first
    output's `Sequence.prompt_scores`, complete before anything is chosen. With `echo_only` nothing is chosen: outputs
    end, empty, when that is known.
    """

    prompt: Sequence[int] = ()
    sampling: SamplingParams = field(default_factory=SamplingParams)
    exit: ExitParams | None = None
    stop_checks: Sequence[StopCheck] = ()
    constraints: Sequence[Constraint] = ()
    prompt_logprobs: int | None = None
    echo_only: bool = False
    source: Sequence[int] = ()

    def guide(self, output: int) -> Guide | None:
        """What holds an output to its constraint, if it has one."""
        return Guide(self.constraints[output], len(self.prompt)) if self.constraints else None


class Fault(Exception):
    """Raised in a step, before it has decided anything, where what some sequences brought along raised `error`."""

    def __init__(self, numbers: Sequence[int], error: Exception) -> None:
        super().__init__(str(error))
        self.numbers, self.error = tuple(numbers), error


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
