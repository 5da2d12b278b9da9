"""Draws through `score`: Gumbel-max over the exact truncated distribution."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from offramp.executors.noise import gumbel, position_keys
from offramp.exits.pack import ExitSpec
from offramp.types.executor import ScoreRow
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


def reference(logits: np.ndarray, sampling: SamplingParams) -> np.ndarray:
    """The truncated distribution [vocab], token by token."""
    probs = softmax(logits / sampling.temperature)
    order = sorted(range(len(probs)), key=lambda token: -probs[token])
    if sampling.top_k:
        probs[order[sampling.top_k :]] = 0
        probs /= probs.sum()
    reached, kept = 0.0, probs.copy()
    for token in order:
        if reached >= sampling.top_p:
            kept[token] = 0
        reached += probs[token]
    kept[probs < sampling.min_p * probs.max()] = 0
    return np.asarray(kept / kept.sum())


DISTRIBUTIONS = [
    {},
    {"top_k": 5},
    {"top_p": 0.7},
    {"min_p": 0.2},
    {"temperature": 2.5, "top_k": 20, "top_p": 0.8, "min_p": 0.05},
]


@pytest.mark.parametrize("fields", DISTRIBUTIONS)
@pytest.mark.parametrize("reduced", [False, True])
def test_draws_follow_the_exact_truncated_distribution(toy: AnyToy, fields: dict[str, float], reduced: bool) -> None:
    """Chi-square over 6,000 positions; the seed is fixed, and the bound is 5 standard deviations."""
    spec = ExitSpec(2, vocabulary="frequent" if reduced else None)
    executor = toy.executor(make_pack(toy, spec, REDUCED if reduced else None), num_blocks=1500)
    sampling = SamplingParams(**{"temperature": 1.5, **fields})  # type: ignore[arg-type]
    hidden, draws = states(toy), 6000
    logits = raw_logits(toy, hidden)[0]
    if reduced:
        logits[list(OUTSIDE)] = -math.inf
    probs = reference(logits, sampling)
    counts = np.zeros(VOCAB)
    for scored in score_hidden(executor, 1, hidden.expand(draws, -1), sampling, seed=11):
        counts[scored.token] += 1
    assert counts[probs == 0].sum() == 0
    expected = probs * draws
    common = expected >= 5
    observed = np.append(counts[common], counts[~common].sum())
    wanted = np.append(expected[common], expected[~common].sum())
    observed, wanted = observed[wanted > 0], wanted[wanted > 0]
    statistic, freedom = ((observed - wanted) ** 2 / wanted).sum(), len(wanted) - 1
    assert statistic < freedom + 5 * math.sqrt(2 * freedom)


def test_the_noise_is_that_of_the_position_the_token_will_have(toy: AnyToy) -> None:
    hidden, sampling = states(toy, rows=12), SamplingParams(temperature=1.5)
    noise = gumbel(position_keys([9] * 12, list(range(1, 13))), np.arange(VOCAB))
    expected = (raw_logits(toy, hidden) / 1.5 + noise).argmax(-1).tolist()
    assert [s.token for s in score_hidden(toy.executor(), 1, hidden, sampling, seed=9)] == expected
    assert expected != raw_logits(toy, hidden).argmax(-1).tolist()


def test_an_exit_and_the_top_draw_with_the_same_noise(toy: AnyToy) -> None:
    executor, hidden = toy.executor(), states(toy, rows=12)
    sampling = SamplingParams(temperature=1.5, top_k=20)
    at_exit = [s.token for s in score_hidden(executor, 1, hidden, sampling)]
    assert at_exit == [s.token for s in score_hidden(executor, 3, hidden, sampling)]


def test_a_draw_depends_on_seed_and_position_alone(toy: AnyToy) -> None:
    executor, hidden = toy.executor(), states(toy).expand(9, -1)
    sampling = SamplingParams(temperature=3.0)
    together = [s.token for s in score_hidden(executor, 1, hidden, sampling, seed=4)]
    alone = [executor.score(1, [ScoreRow(p, [0, 1, 2], sampling, 4)], frozenset())[0].token for p in range(9)]
    assert together == alone
    assert together != [s.token for s in score_hidden(executor, 1, hidden, sampling, seed=5)]
    assert len(set(together)) > 1


def test_top_p_keeps_the_token_that_reaches_it(toy: AnyToy) -> None:
    """With p just above the largest probability two tokens stay, with p just below one."""
    hidden = states(toy)
    probs = softmax(raw_logits(toy, hidden)[0])
    executor, wide = toy.executor(num_blocks=100), hidden.expand(400, -1)
    for shift, kept in ((-1e-5, 1), (1e-5, 2)):
        sampling = SamplingParams(temperature=1.0, top_p=float(probs.max()) + shift)
        tokens = {s.token for s in score_hidden(executor, 1, wide, sampling)}
        assert tokens == set(np.argsort(-probs)[:kept].tolist())


@pytest.mark.parametrize("fields", [{"top_k": 1}, {"top_p": 1e-9}, {"min_p": 1.0}, {"temperature": 1e-300}])
def test_the_narrowest_truncation_is_greedy(toy: AnyToy, fields: dict[str, float]) -> None:
    hidden = states(toy, rows=20)
    sampling = SamplingParams(**{"temperature": 1.0, **fields})  # type: ignore[arg-type]
    drawn = [s.token for s in score_hidden(toy.executor(), 1, hidden, sampling)]
    assert drawn == raw_logits(toy, hidden).argmax(-1).tolist()


def test_top_k_beyond_the_vocabulary_keeps_all(toy: AnyToy) -> None:
    executor, hidden = toy.executor(), states(toy, rows=20)
    plain, wide = SamplingParams(temperature=2.0), SamplingParams(temperature=2.0, top_k=10_000)
    assert score_hidden(executor, 1, hidden, plain) == score_hidden(executor, 1, hidden, wide)


def test_equal_logits_are_cut_by_top_k_at_lower_ids(toy: AnyToy) -> None:
    executor, flat = toy.executor(num_blocks=50), torch.zeros(200, 32, dtype=torch.float64)
    tokens = {s.token for s in score_hidden(executor, 1, flat, SamplingParams(temperature=1.0, top_k=3))}
    assert tokens == {0, 1, 2}
