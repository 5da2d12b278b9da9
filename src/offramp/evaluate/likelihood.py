"""How likely given tokens are at full depth.

Executors tell the log-probabilities of the likeliest tokens, not of any token. A token that is not among them is asked
for a second time with a bias: the bias, and whatever it does to the sum over the vocabulary, cancel in the difference
to the likeliest token, so that

    log p(token) = log p(first) + (log p'(token) - log p'(first)) - bias

where p' are the probabilities under the bias.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from offramp.engine.engine import Engine
from offramp.llm.forced import At, Forced, ForcedPass, in_groups
from offramp.types.executor import Scored
from offramp.types.sampling import SamplingParams

PLAIN = SamplingParams(logprobs=2)
BIAS = 100.0
"""The largest that a request can have."""


class Seen(NamedTuple):
    """A given token at full depth: its natural log-probability, and the token that would have been chosen instead."""

    log_prob: float
    choice: int | None


def likelihoods(engine: Engine, texts: Sequence[Forced]) -> list[list[Seen]]:
    """For every token asked about, in order; log-probabilities are floored at 100 below the likeliest token's."""
    seen: list[list[Seen]] = []
    for _, group in in_groups(texts, engine):
        wanted = [(i, p) for i, text in enumerate(group) for p in range(text.start, len(text.tokens))]
        with ForcedPass(engine, [text.tokens for text in group]) as forced:
            top = engine.executor.shape.num_segments
            plain = forced.score(top, [At(i, p - 1, PLAIN) for i, p in wanted])
            missing = [n for n, (i, p) in enumerate(wanted) if group[i].tokens[p] not in dict(_ranked(plain[n]))]
            biased = iter(forced.score(top, [_biased(group, *wanted[n]) for n in missing]) if missing else [])
            values = [
                dict(_ranked(scored)).get(group[i].tokens[p]) for (i, p), scored in zip(wanted, plain, strict=True)
            ]
            for n in missing:
                i, p = wanted[n]
                values[n] = _unbiased(group[i].tokens[p], plain[n], next(biased))
        scored = iter([Seen(-math.inf if v is None else v, s.token) for v, s in zip(values, plain, strict=True)])
        seen += [[next(scored) for _ in range(text.start, len(text.tokens))] for text in group]
    return seen


def _biased(texts: Sequence[Forced], text: int, position: int) -> At:
    bias = SamplingParams(logprobs=2, logit_bias={texts[text].tokens[position]: BIAS})
    return At(text, position - 1, bias)


def _unbiased(token: int, plain: Scored, biased: Scored) -> float | None:
    """None where the logits are not finite."""
    if not plain.logprobs or not biased.logprobs:
        return None
    first, log_prob = plain.logprobs[0]
    ranked = dict(biased.logprobs)
    if token not in ranked or first not in ranked:
        return log_prob - BIAS
    return log_prob + ranked[token] - ranked[first] - BIAS


def _ranked(scored: Scored) -> tuple[tuple[int, float], ...]:
    return scored.logprobs or ()
