"""How likely given tokens are at full depth.

Executors tell the log-probabilities of the likeliest tokens, not of any token. A token that is not among them is asked
for a second time with a bias: the bias, and whatever it does to the sum over the vocabulary, cancel in the difference
to the likeliest token, so that

    log p(token) = log p(first) + (log p'(token) - log p'(first)) - bias

where p' are the probabilities under the bias.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from offramp.types.executor import Executor, Scored, ScoreRow
from offramp.types.output import LogProbs
from offramp.types.sampling import SamplingParams

BIAS = 100.0
"""The largest that a request can have."""


class Given(NamedTuple):
    """A position that has reached the top, and the token that follows it."""

    position: int
    blocks: Sequence[int]
    token: int


def given_logprobs(executor: Executor, rows: Sequence[Given], most: int) -> list[LogProbs | None]:
    """For each row its token with its natural log-probability, then the `most` likeliest tokens.

    A log-probability is at least that of the likeliest token less 100. None where the logits are not finite.
    """
    plain = _score(executor, rows, [SamplingParams(logprobs=max(most, 2))] * len(rows))
    ranked = [dict(scored.logprobs or ()) for scored in plain]
    missing = [n for n, row in enumerate(rows) if ranked[n] and row.token not in ranked[n]]
    if missing:
        biases = [SamplingParams(logprobs=2, logit_bias={rows[n].token: BIAS}) for n in missing]
        for n, biased in zip(missing, _score(executor, [rows[n] for n in missing], biases), strict=True):
            ranked[n][rows[n].token] = _unbiased(rows[n].token, plain[n], biased)
    return [
        ((row.token, known[row.token]), *(scored.logprobs or ())[1 : most + 1]) if known else None
        for row, scored, known in zip(rows, plain, ranked, strict=True)
    ]


def _score(executor: Executor, rows: Sequence[Given], samplings: Sequence[SamplingParams]) -> list[Scored]:
    asked = [ScoreRow(row.position, row.blocks, how, 0) for row, how in zip(rows, samplings, strict=True)]
    return executor.score(executor.shape.num_segments, asked, frozenset())


def _unbiased(token: int, plain: Scored, biased: Scored) -> float:
    assert plain.logprobs
    first, log_prob = plain.logprobs[0]
    ranked = dict(biased.logprobs or ())
    if token not in ranked or first not in ranked:
        return log_prob - BIAS
    return log_prob + ranked[token] - ranked[first] - BIAS
