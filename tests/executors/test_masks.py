"""Masks of allowed tokens, through `score`: at the top, at exits, at exits with few words and "other"."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest

from offramp.exits.pack import ExitSpec
from offramp.types.executor import Executor, Feature, Scored
from offramp.types.sampling import SamplingParams
from tests.executors.masks import packed
from tests.executors.toys import OUTSIDE, REDUCED, VOCAB, AnyToy, make_pack, raw_logits, score_hidden, softmax, states

TOKEN_FEATURES: frozenset[Feature] = frozenset({"max_prob", "margin", "entropy"})
SILENT = {"max_prob": 0.0, "margin": 0.0, "entropy": 1.0}
LISTED = SamplingParams(logprobs=VOCAB)


def reduced_executor(toy: AnyToy, *, other: bool) -> Executor:
    return toy.executor(make_pack(toy, ExitSpec(2, vocabulary="frequent", other=other), REDUCED))


def score_masked(toy: AnyToy, executor: Executor, allowed: Iterable[int], rows: int = 1, **row: Any) -> list[Scored]:
    """Rows at the first exit, all under one mask."""
    return score_hidden(executor, 1, states(toy, rows), LISTED, TOKEN_FEATURES, allowed=packed(allowed), **row)


@pytest.mark.parametrize("boundary", [1, 3])
def test_what_is_left_is_renormalised(toy: AnyToy, boundary: int) -> None:
    """The features are those of the distribution over allowed tokens; entropy still counts the head's outcomes."""
    allowed = [3, 8, 64, 95]
    hidden = states(toy)
    scored = score_hidden(toy.executor(), boundary, hidden, LISTED, TOKEN_FEATURES, allowed=packed(allowed))[0]
    probs = softmax(raw_logits(toy, hidden)[0, allowed])
    first, second = np.sort(probs)[::-1][:2]
    assert scored.token == allowed[int(probs.argmax())]
    assert dict(scored.logprobs or ()) == toy.approx({t: math.log(p) for t, p in zip(allowed, probs, strict=True)})
    assert scored.features["max_prob"] == toy.approx(first)
    assert scored.features["margin"] == toy.approx(first - second)
    assert scored.features["entropy"] == toy.approx(-(probs * np.log(probs)).sum() / math.log(VOCAB))


def test_one_allowed_token_is_certain_at_any_exit(toy: AnyToy) -> None:
    for scored in score_masked(toy, reduced_executor(toy, other=True), [REDUCED[5]], rows=20):
        assert scored.token == REDUCED[5]
        assert scored.features == toy.approx({"max_prob": 1.0, "margin": 1.0, "entropy": 0.0})


@pytest.mark.parametrize("other", [False, True])
@pytest.mark.parametrize("allowed", [(), OUTSIDE, OUTSIDE[:1]], ids=["nothing", "outside", "one outside"])
def test_an_exit_without_an_allowed_word_leaves_the_choice_to_the_top(
    toy: AnyToy, other: bool, allowed: tuple[int, ...]
) -> None:
    for scored in score_masked(toy, reduced_executor(toy, other=other), allowed, rows=20):
        assert scored == (None, SILENT, None)


def test_other_takes_part_while_a_token_outside_is_allowed_and_not_banned(toy: AnyToy) -> None:
    executor = reduced_executor(toy, other=True)
    probs = [s.features["max_prob"] for s in score_masked(toy, executor, REDUCED, rows=40)]
    with_other = [s.features["max_prob"] for s in score_masked(toy, executor, (*REDUCED, OUTSIDE[7]), rows=40)]
    assert all(a > b for a, b in zip(probs, with_other, strict=True))
    assert 0.0 in with_other and any(with_other)
    for banned in (OUTSIDE[7:8], (OUTSIDE[7], OUTSIDE[7]), OUTSIDE):
        scored = score_masked(toy, executor, (*REDUCED, OUTSIDE[7]), rows=40, banned=banned)
        assert [s.features["max_prob"] for s in scored] == probs
    scored = score_masked(toy, executor, (*REDUCED, *OUTSIDE[6:8]), rows=40, banned=OUTSIDE[7:8])
    assert [s.features["max_prob"] for s in scored] == with_other


def test_only_allowed_tokens_are_drawn(toy: AnyToy) -> None:
    executor, hidden = toy.executor(), states(toy)
    allowed = {4, 40, 41, 90}
    for sampling in (SamplingParams(temperature=1e6), SamplingParams(temperature=50.0, top_p=0.99, min_p=1e-9)):
        drawn = {
            score_hidden(executor, 3, hidden, sampling, seed=seed, allowed=packed(allowed))[0].token
            for seed in range(60)
        }
        assert drawn == allowed


def test_a_mask_may_be_shorter_or_longer_than_the_vocabulary(toy: AnyToy) -> None:
    executor, hidden = toy.executor(), states(toy)
    short = score_hidden(executor, 1, hidden, LISTED, allowed=b"\xff")[0]
    assert {token for token, _ in short.logprobs or ()} == set(range(8))
    long = score_hidden(executor, 1, hidden, LISTED, allowed=b"\xff" * 100)[0]
    assert long == score_hidden(executor, 1, hidden, LISTED)[0]


def test_penalties_do_not_bring_a_token_back(toy: AnyToy) -> None:
    sampling = SamplingParams(repetition_penalty=0.1, presence_penalty=-2.0, logit_bias={7: 100.0}, logprobs=VOCAB)
    row: dict[str, Any] = {"prompt": [7], "output": [7, 7], "allowed": packed([2, 3])}
    scored = score_hidden(toy.executor(), 1, states(toy), sampling, **row)[0]
    assert {token for token, _ in scored.logprobs or ()} == {2, 3}
