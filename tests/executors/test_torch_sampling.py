"""Bias, bans, penalties, truncation and draws, through `score`."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
import torch

from offramp.exits.pack import ExitSpec
from offramp.types.executor import Feature, ScoreRow
from offramp.types.sampling import SamplingParams
from tests.executors.toys import VOCAB, Toy, make_pack, make_toy, score_hidden

TOKEN_FEATURES: frozenset[Feature] = frozenset({"max_prob", "margin", "entropy"})
SILENT = {"max_prob": 0.0, "margin": 0.0, "entropy": 1.0}
REDUCED = tuple(range(0, VOCAB, 2))
OUTSIDE = tuple(range(1, VOCAB, 2))


@pytest.fixture(scope="module")
def toy() -> Toy:
    return make_toy()


def states(toy: Toy, rows: int = 1, seed: int = 3, scale: float = 1.0) -> torch.Tensor:
    """`scale` flattens or sharpens what the "none" norm head gives."""
    return torch.tensor(np.random.default_rng(seed).normal(0, scale, (rows, toy.spec.hidden_size)))


def raw_logits(toy: Toy, hidden: torch.Tensor) -> np.ndarray:
    weights = toy.source.arrays
    h = hidden.numpy()
    return np.asarray(
        weights["model.norm.weight"] * h / np.sqrt((h * h).mean(-1, keepdims=True) + 1e-6) @ weights["lm_head.weight"].T
    )


def softmax(logits: np.ndarray) -> np.ndarray:
    e = np.exp(logits - logits.max())
    return np.asarray(e / e.sum())


def test_greedy_takes_the_lowest_id_on_ties(toy: Toy) -> None:
    assert [s.token for s in score_hidden(toy.executor(), 1, torch.zeros(3, 32, dtype=torch.float64))] == [0, 0, 0]


def test_penalties_bias_and_bans_against_plain_loops(toy: Toy) -> None:
    hidden = states(toy)
    logits = raw_logits(toy, hidden)[0]
    prompt, output, banned = [5, 5, 9, 11], [9, 9, 9, 40, 41], [2, 3, 11]
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
    assert dict(scored.logprobs) == pytest.approx({t: math.log(p) for t, p in enumerate(probs) if p > 0})
    assert scored.features["max_prob"] == pytest.approx(probs.max())
    kept = probs[probs > 0]
    assert scored.features["entropy"] == pytest.approx(-(kept * np.log(kept)).sum() / math.log(VOCAB))


def test_rows_of_a_batch_keep_their_own_parameters(toy: Toy) -> None:
    executor, hidden = toy.executor(), states(toy).expand(3, -1)
    score_hidden(executor, 1, hidden)
    best = int(raw_logits(toy, hidden)[0].argmax())
    plain, biased = SamplingParams(), SamplingParams(logit_bias={7: 100})
    rows = [ScoreRow(0, [0], plain, 0), ScoreRow(1, [0], biased, 0), ScoreRow(2, [0], plain, 0, banned=[best])]
    tokens = [s.token for s in executor.score(1, rows, frozenset())]
    assert tokens[:2] == [best, 7]
    assert tokens[2] not in (None, best)


def test_logprobs_put_the_chosen_token_first_and_then_the_most_likely(toy: Toy) -> None:
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


def test_zero_logprobs_give_the_chosen_token_only(toy: Toy) -> None:
    scored = score_hidden(toy.executor(), 1, states(toy), SamplingParams(logprobs=0))[0]
    assert scored.logprobs is not None and [t for t, _ in scored.logprobs] == [scored.token]


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
def test_draws_follow_the_exact_truncated_distribution(toy: Toy, fields: dict[str, float], reduced: bool) -> None:
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


def test_a_draw_depends_on_seed_and_position_alone(toy: Toy) -> None:
    executor, hidden = toy.executor(), states(toy).expand(9, -1)
    sampling = SamplingParams(temperature=3.0)
    together = [s.token for s in score_hidden(executor, 1, hidden, sampling, seed=4)]
    alone = [executor.score(1, [ScoreRow(p, [0, 1, 2], sampling, 4)], frozenset())[0].token for p in range(9)]
    assert together == alone
    assert together != [s.token for s in score_hidden(executor, 1, hidden, sampling, seed=5)]
    assert len(set(together)) > 1


def test_top_p_keeps_the_token_that_reaches_it(toy: Toy) -> None:
    """With p just above the largest probability two tokens stay, with p just below one."""
    hidden = states(toy)
    probs = softmax(raw_logits(toy, hidden)[0])
    executor, wide = toy.executor(num_blocks=100), hidden.expand(400, -1)
    for shift, kept in ((-1e-6, 1), (1e-6, 2)):
        sampling = SamplingParams(temperature=1.0, top_p=float(probs.max()) + shift)
        tokens = {s.token for s in score_hidden(executor, 1, wide, sampling)}
        assert tokens == set(np.argsort(-probs)[:kept].tolist())


@pytest.mark.parametrize("fields", [{"top_k": 1}, {"top_p": 1e-9}, {"min_p": 1.0}, {"temperature": 1e-300}])
def test_the_narrowest_truncation_is_greedy(toy: Toy, fields: dict[str, float]) -> None:
    hidden = states(toy, rows=20)
    sampling = SamplingParams(**{"temperature": 1.0, **fields})  # type: ignore[arg-type]
    drawn = [s.token for s in score_hidden(toy.executor(), 1, hidden, sampling)]
    assert drawn == raw_logits(toy, hidden).argmax(-1).tolist()


def test_top_k_beyond_the_vocabulary_keeps_all(toy: Toy) -> None:
    executor, hidden = toy.executor(), states(toy, rows=20)
    plain, wide = SamplingParams(temperature=2.0), SamplingParams(temperature=2.0, top_k=10_000)
    assert score_hidden(executor, 1, hidden, plain) == score_hidden(executor, 1, hidden, wide)


def test_equal_logits_are_cut_by_top_k_at_lower_ids(toy: Toy) -> None:
    executor, flat = toy.executor(num_blocks=50), torch.zeros(200, 32, dtype=torch.float64)
    tokens = {s.token for s in score_hidden(executor, 1, flat, SamplingParams(temperature=1.0, top_k=3))}
    assert tokens == {0, 1, 2}


def reduced_executor(toy: Toy, *, other: bool):  # type: ignore[no-untyped-def]
    return toy.executor(make_pack(toy, ExitSpec(2, vocabulary="frequent", other=other), REDUCED))


def test_a_positive_bias_outside_the_vocabulary_disables_the_exit(toy: Toy) -> None:
    executor, hidden = reduced_executor(toy, other=False), states(toy)
    for bias, silent in (({1: 0.1}, True), ({1: -5.0}, False), ({2: 0.1}, False), ({10_000: 1.0}, False)):
        scored = score_hidden(executor, 1, hidden, SamplingParams(logit_bias=bias), TOKEN_FEATURES)[0]
        assert (scored.token is None) == silent
        assert (scored.features == SILENT) == silent


def test_a_ban_on_the_whole_vocabulary_leaves_no_token(toy: Toy) -> None:
    executor = reduced_executor(toy, other=False)
    scored = score_hidden(executor, 1, states(toy), SamplingParams(logprobs=1), TOKEN_FEATURES, banned=REDUCED)[0]
    assert scored == (None, SILENT, None)


def test_other_is_masked_only_if_every_token_outside_is(toy: Toy) -> None:
    executor = reduced_executor(toy, other=True)
    hidden = next(h for h in states(toy, rows=50)[:, None] if score_hidden(executor, 1, h)[0].token is None)
    assert score_hidden(executor, 1, hidden, banned=OUTSIDE[1:])[0].token is None
    scored = score_hidden(executor, 1, hidden, needs=TOKEN_FEATURES, banned=OUTSIDE)[0]
    logits = raw_logits(toy, hidden)[0, list(REDUCED)]
    assert scored.token == REDUCED[int(logits.argmax())]
    assert scored.features["max_prob"] == pytest.approx(softmax(logits).max())


def test_other_is_never_sampled(toy: Toy) -> None:
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
def test_a_row_that_is_not_finite_fails_alone(toy: Toy, boundary: int, bad: float, temperature: float) -> None:
    executor, hidden = toy.executor((1, 2)), states(toy, rows=3)
    sampling = SamplingParams(temperature=temperature, top_p=0.9, logprobs=1)
    expected = score_hidden(executor, boundary, hidden, sampling, TOKEN_FEATURES)
    hidden[1, 4] = bad
    scored = score_hidden(executor, boundary, hidden, sampling, TOKEN_FEATURES)
    assert scored[1] == (None, SILENT, None)
    assert [scored[0], scored[2]] == [expected[0], expected[2]]
