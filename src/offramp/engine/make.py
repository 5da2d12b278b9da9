"""From a request to its sequences."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from dataclasses import replace

from offramp.engine.prompts import PromptScores
from offramp.engine.request import Request
from offramp.engine.sequence import Sequence
from offramp.engine.sources import SharedSource
from offramp.exits.criteria import Criterion, make_criterion
from offramp.types.executor import ModelShape
from offramp.types.exits import ExitParams
from offramp.types.sampling import MAX_SEED


def with_start(request: Request, shape: ModelShape) -> Request:
    """The request with what its decoder has been given: the decoder start token, where that is left to the model."""
    if shape.encoder is None or request.prompt or not request.source:
        return request
    return replace(request, prompt=(shape.encoder.decoder_start_token_id,))


def make_sequences(request: Request, first: int, shape: ModelShape, others: Iterable[Sequence]) -> list[Sequence]:
    """One sequence for each output of a request, numbered from `first`, which is the parent of the rest.

    `others` are the sequences there are: equal criteria are one object, so that tests put their rows together.
    """
    sampling, exit = request.sampling, request.exit
    seed = secrets.randbelow(MAX_SEED - sampling.n) if sampling.seed is None else sampling.seed
    criterion = None if exit is None else _criterion(exit, others)
    prompt = list(request.prompt)
    sequences = [
        Sequence(first + i, prompt, sampling, (seed + i) % MAX_SEED, shape, exit, criterion) for i in range(sampling.n)
    ]
    source = SharedSource(request.source) if request.source else None
    sequences[0].prompt_scores = PromptScores(len(prompt), request.prompt_logprobs)
    for i, sequence in enumerate(sequences):
        sequence.guide = request.guide(i)
        sequence.source = source
        sequence.parent = sequences[0] if i else None
    if request.echo_only:
        for sequence in sequences:
            sequence.max_tokens = 0
    return sequences


def _criterion(exit: ExitParams, others: Iterable[Sequence]) -> Criterion:
    new = make_criterion(exit.criterion, exit.options)
    known = (s.criterion for s in others if s.criterion is not None)
    return next((criterion for criterion in known if criterion == new), new)
