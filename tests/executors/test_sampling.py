"""Bias, bans, penalties, log-probabilities and refusals to choose, through `score`."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
import torch

from offramp.exits.pack import ExitSpec
from offramp.types.executor import Executor, Feature, ScoreRow
from offramp.types.sampling import SamplingParams
from tests.executors.toys import (
    OUTSIDE,
    REDUCED,
    VOCAB,
    AnyToy,
    make_pack,
    raw_logits,
    score_hidden,
    softmax,
    states,
)

TOKEN_FEATURES: frozenset[Feature] = frozenset({"max_prob", "margin", "entropy"})
SILENT = {"max_prob": 0.0, "margin": 0.0, "entropy": 1.0}


def test_greedy_takes_the_lowest_id_on_ties(toy: AnyToy) -> None:
    assert [s.token for s in score_hidden(toy.executor(), 1, torch.zeros(3, 32, dtype=torch.float64))] == [0, 0, 0]


def test_penalties_bias_and_bans_against_plain_loops(toy: AnyToy) -> None:
    hidden = states(toy)
    logits = raw_logits(toy, hidden)[0]
    prompt, output, banned = [5, 5, 9, 11, *range(60, 90)], [9, 9, 9, 40, 41], [2, 3, 11]
    sampling = SamplingParams(
        repetition_penalty=1.4,
        presence_penalty=0.5,
        frequency_penalty=-0.3,
        logit_bias={9: 3.0, 50: -2.0, 2: 7.0},
        logprobs=VOCAB,
    )
    for token, bias in sampling.logit_bias.items():
        logits[token] += bias
    for token in banned:
        logits[token] = -math.inf
    for token in {*prompt, *output}:
        logits[token] = logits[token] / 1.4 if logits[token] > 0 else logits[token] * 1.4
    for token, count in Counter(output).items():
        logits[token] -= 0.5 - 0.3 * count
    scored = score_hidden(
        toy.executor(), 3, hidden, sampling, TOKEN_FEATURES, prompt=prompt, output=output, banned=banned
    )[0]
    probs = softmax(logits)
    assert scored.token == int(logits.argmax())
    assert scored.logprobs is not None
    assert dict(scored.logprobs) == toy.approx({t: math.log(p) for t, p in enumerate(probs) if p > 0})
    assert scored.features["max_prob"] == toy.approx(probs.max())
    kept = probs[probs > 0]
    assert scored.features["entropy"] == toy.approx(-(kept * np.log(kept)).sum() / math.log(VOCAB))


def test_rows_of_a_batch_keep_their_own_parameters(toy: AnyToy) -> None:
    executor, hidden = toy.executor(), states(toy).expand(3, -1)
    score_hidden(executor, 1, hidden)
    best = int(raw_logits(toy, hidden)[0].argmax())
    plain, biased = SamplingParams(), SamplingParams(logit_bias={7: 100})
    rows = [ScoreRow(0, [0], plain, 0), ScoreRow(1, [0], biased, 0), ScoreRow(2, [0], plain, 0, banned=[best])]
    tokens = [s.token for s in executor.score(1, rows, frozenset())]
    assert tokens[:2] == [best, 7]
    assert tokens[2] not in (None, best)


def test_logprobs_put_the_chosen_token_first_and_then_the_most_likely(toy: AnyToy) -> None:
    hidden = states(toy)
    ordered = np.argsort(-raw_logits(toy, hidden)[0])
    sampling = SamplingParams(temperature=50.0, logprobs=2)
    seen = set()
    for seed in range(20):
        scored = score_hidden(toy.executor(), 1, hidden, sampling, seed=seed)[0]
        assert scored.logprobs is not None
        assert scored.logprobs[0][0] == scored.token
        assert [token for token, _ in scored.logprobs[1:]] == ordered[:2].tolist()
        seen.add(scored.token)
    assert len(seen) > 5


def test_zero_logprobs_give_the_chosen_token_only(toy: AnyToy) -> None:
    scored = score_hidden(toy.executor(), 1, states(toy), SamplingParams(logprobs=0))[0]
    assert scored.logprobs is not None and [t for t, _ in scored.logprobs] == [scored.token]


def reduced_executor(toy: AnyToy, *, other: bool) -> Executor:
    return toy.executor(make_pack(toy, ExitSpec(2, vocabulary="frequent", other=other), REDUCED))


def test_a_positive_bias_outside_the_vocabulary_disables_the_exit(toy: AnyToy) -> None:
    executor, hidden = reduced_executor(toy, other=False), states(toy)
    for bias, silent in (({1: 0.1}, True), ({1: -5.0}, False), ({2: 0.1}, False), ({10_000: 1.0}, False)):
        scored = score_hidden(executor, 1, hidden, SamplingParams(logit_bias=bias), TOKEN_FEATURES)[0]
        assert (scored.token is None) == silent
        assert (scored.features == SILENT) == silent


def test_a_ban_on_the_whole_vocabulary_leaves_no_token(toy: AnyToy) -> None:
    executor = reduced_executor(toy, other=False)
    scored = score_hidden(executor, 1, states(toy), SamplingParams(logprobs=1), TOKEN_FEATURES, banned=REDUCED)[0]
    assert scored == (None, SILENT, None)


def test_other_is_masked_only_if_every_token_outside_is(toy: AnyToy) -> None:
    executor = reduced_executor(toy, other=True)
    hidden = next(h for h in states(toy, rows=50)[:, None] if score_hidden(executor, 1, h)[0].token is None)
    assert score_hidden(executor, 1, hidden, banned=OUTSIDE[1:])[0].token is None
    scored = score_hidden(executor, 1, hidden, needs=TOKEN_FEATURES, banned=OUTSIDE)[0]
    logits = raw_logits(toy, hidden)[0, list(REDUCED)]
    assert scored.token == REDUCED[int(logits.argmax())]
    assert scored.features["max_prob"] == toy.approx(softmax(logits).max())


def test_other_is_never_sampled(toy: AnyToy) -> None:
    executor = reduced_executor(toy, other=True)
    hidden = next(h for h in states(toy, rows=50)[:, None] if score_hidden(executor, 1, h)[0].token is not None)
    tokens = {
        score_hidden(executor, 1, hidden, SamplingParams(temperature=1e6), seed=seed)[0].token for seed in range(300)
    }
    assert None not in tokens
    assert len(tokens) > len(REDUCED) // 2


@pytest.mark.parametrize("boundary", [1, 2, 3])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_row_that_is_not_finite_fails_alone(toy: AnyToy, boundary: int, bad: float, temperature: float) -> None:
    executor, hidden = toy.executor((1, 2)), states(toy, rows=3)
    sampling = SamplingParams(temperature=temperature, top_p=0.9, logprobs=1)
    expected = score_hidden(executor, boundary, hidden, sampling, TOKEN_FEATURES)
    hidden[1, 4] = bad
    scored = score_hidden(executor, boundary, hidden, sampling, TOKEN_FEATURES)
    assert scored[1] == (None, SILENT, None)
    assert [scored[0], scored[2]] == [expected[0], expected[2]]
