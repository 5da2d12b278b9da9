"""The paper's batching of a fixed batch that starts together (Miao et al. 2024): all climb and leave together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from offramp.types.exits import ExitParams
from offramp.types.sampling import SamplingParams
from tests.oracle.model import Model
from tests.oracle.run import Attempt, Choice, Result, Run


class Asked(NamedTuple):
    """One request of a batch; exits are off or under `fill`."""

    prompt: list[int]
    sampling: SamplingParams
    exit: ExitParams | None = None
    source: Sequence[int] = ()


def lockstep(model: Model, requests: list[Asked]) -> list[Result]:
    """Generate for a batch: in each iteration all leave at the first exit where every row passes there."""
    runs = [Run(model.reading(asked.source), asked.prompt, asked.sampling, asked.exit) for asked in requests]
    for run in runs:
        run.prefill()
    while batch := [run for run in runs if run.finish_reason is None]:
        for run in batch:
            run.start(range(run.live, run.live + 1))
        for run, choice in zip(batch, choices(model, batch), strict=True):
            run.accept(choice)
            run.fill()
    return [run.result() for run in runs]


def choices(model: Model, batch: list[Run]) -> list[Choice]:
    """One token for each row of the batch, all from the same exit or all from the top.

    An exit that one row does not test is tested for none.
    """
    attempts = [Attempt(run) for run in batch]
    for boundary, layer in enumerate(model.exit_layers, start=1):
        for run in batch:
            run.climb(layer, only=run.live)
        skip = any(attempt.needed(layer) is None for attempt in attempts)
        tested = [attempt.test(boundary, layer, skip=skip) for attempt in attempts]
        if all(tested):
            return [choice for choice in tested if choice]
    for run in batch:
        run.climb(model.num_layers, only=run.live)
    return [run.top_choice(run.live) for run in batch]
