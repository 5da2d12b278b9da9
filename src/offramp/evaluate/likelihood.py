"""How likely given texts are at full depth."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from offramp.engine.engine import Engine
from offramp.engine.given import Given, given_logprobs
from offramp.llm.forced import Forced, ForcedPass, in_groups, parts


class Seen(NamedTuple):
    """A given token at full depth: its natural log-probability, and the token that would have been chosen instead."""

    log_prob: float
    choice: int | None


def likelihoods(engine: Engine, texts: Sequence[Forced]) -> list[list[Seen]]:
    """For every token asked about, in order; see `given_logprobs`. Minus infinity where the logits are not finite."""
    seen: list[list[Seen]] = []
    for _, group in in_groups(texts, engine):
        with ForcedPass(engine, *parts(group)) as forced:
            rows = [
                Given(p - 1, forced.blocks(i), text.tokens[p])
                for i, text in enumerate(group)
                for p in range(text.start, len(text.tokens))
            ]
            told = given_logprobs(engine.executor, rows, most=1)
        found = iter([Seen(one[0][1], one[1][0]) if one else Seen(-math.inf, None) for one in told])
        seen += [[next(found) for _ in range(text.start, len(text.tokens))] for text in group]
    return seen
