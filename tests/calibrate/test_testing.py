"""Fixed-sequence testing: the guarantee, and that leaving early changes nothing."""

from __future__ import annotations

import random
from collections.abc import Generator

import pytest

from offramp.calibrate.bounds import hoeffding_bentkus, log_binomial_tail
from offramp.calibrate.testing import PValue, Verdict, fixed_sequence

TRUE_RISKS = [0.01 * step for step in range(1, 31)]
"""Of settings from careful to bold."""

RISKS = (0.055, 0.105, 0.205)
DELTA, COUNT, RESAMPLINGS = 0.1, 150, 200


def resampled(seed: int, p_value: PValue) -> Verdict:
    """A calibration on fresh prompts. Each prompt has a difficulty, so that its losses under all settings go together.

    A loss is 1 with the setting's true risk, else 0: the distribution with the widest spread.
    """
    random_state = random.Random(seed)
    difficulties = [random_state.random() for _ in range(COUNT)]

    def measure(true_risk: float) -> Generator[float, None, None]:
        yield from (float(difficulty < true_risk) for difficulty in difficulties)

    return fixed_sequence(TRUE_RISKS, measure, COUNT, RISKS, DELTA, p_value)


def times_exceeded(p_value: PValue) -> dict[float, int]:
    """In how many of the resamplings the setting accepted for a risk truly has a larger one."""
    exceeded = dict.fromkeys(RISKS, 0)
    for seed in range(RESAMPLINGS):
        for risk, place in resampled(seed, p_value).accepted.items():
            exceeded[risk] += place is not None and TRUE_RISKS[place] > risk
    return exceeded


def most_allowed() -> int:
    """So often, or more often, a promise that is kept with probability 1 - delta is broken once in 10,000 tries."""
    return next(k for k in range(RESAMPLINGS) if log_binomial_tail(k, RESAMPLINGS, DELTA) > -1e-4)


def test_the_true_risk_exceeds_the_target_no_more_often_than_delta_allows() -> None:
    exceeded = times_exceeded(hoeffding_bentkus)
    assert max(exceeded.values()) <= most_allowed()


def test_a_comparison_of_means_would_not_keep_the_promise() -> None:
    exceeded = times_exceeded(lambda mean, count, risk: float(mean > risk))
    assert min(exceeded.values()) > most_allowed()


def test_the_chosen_settings_are_worth_having() -> None:
    """The promise is not kept by accepting nothing: on average more than half of the risk is used."""
    places = [resampled(seed, hoeffding_bentkus).accepted[0.205] for seed in range(50)]
    assert sum(0 if place is None else TRUE_RISKS[place] for place in places) / 50 > 0.11


def test_nothing_is_accepted_behind_a_failure() -> None:
    table = {"careful": [0.0] * 100, "bad": [1.0] * 100, "good": [0.0] * 100}
    verdict = fixed_sequence(list(table), lambda s: (x for x in table[s]), 100, (0.1,), 0.05)
    assert verdict.accepted == {0.1: 0} and [t.place for t in verdict.tested] == [0, 1]


def test_a_setting_that_cannot_pass_any_more_is_left() -> None:
    taken = []

    def measure(setting: str) -> Generator[float, None, None]:
        for i in range(100):
            taken.append(i)
            yield float(i < 50)

    verdict = fixed_sequence(["bad"], measure, 100, (0.1, 0.2), 0.05)
    assert verdict.accepted == {0.1: None, 0.2: None}
    assert len(taken) == verdict.tested[0].count < 25


@pytest.mark.parametrize("seed", range(20))
def test_leaving_early_decides_as_measuring_everything_does(seed: int) -> None:
    state = random.Random(seed)
    table = [[state.random() * state.random() * bold / 8 for _ in range(200)] for bold in range(1, 9)]
    verdict = fixed_sequence(range(8), lambda s: (x for x in table[s]), 200, RISKS, DELTA)
    for risk in RISKS:
        passing = [hoeffding_bentkus(sum(losses) / 200, 200, risk) <= DELTA for losses in table]
        first_failure = passing.index(False) if False in passing else 8
        assert verdict.accepted[risk] == (first_failure - 1 if first_failure else None)
