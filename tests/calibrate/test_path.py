"""Paths of thresholds."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from offramp.calibrate.path import NEVER, Observations, Setting, all_settings, best_threshold, choose, corrected

TOKENS = st.lists(st.tuples(st.sampled_from([NEVER, 0.0, 0.2, 0.5, 0.8, 1.0]), st.integers(-8, 4)), max_size=12)

LENGTH = 30
"""Tokens of every text."""


def observations(seed: int, tokens: int = 3000) -> Observations:
    """Two exits; the surer one is, the rarer it is wrong, and the upper one is right more often."""
    state = np.random.default_rng(seed)
    confidences = state.random((tokens, 2)) ** (0.7, 0.4)
    differs = state.random((tokens, 2)) > confidences ** (0.5, 0.2)
    confidences[state.random((tokens, 2)) < 0.1] = NEVER
    texts = np.arange(tokens) // LENGTH
    return Observations((5, 20), 30, confidences, differs, np.full(tokens, 1 / tokens), texts, tokens // LENGTH)


@given(TOKENS)
def test_the_best_threshold_is_the_best_of_all(tokens: list[tuple[float, int]]) -> None:
    confidences, values = np.array([c for c, _ in tokens]), np.array([float(v) for _, v in tokens])
    worth = {t: sum(v for c, v in tokens if c >= t) for t in {c for c, _ in tokens} - {NEVER}}
    best = max(worth.values(), default=0)
    expected = max((t for t, w in worth.items() if w == best), default=None) if best > 0 else None
    assert best_threshold(confidences, values) == expected


@pytest.mark.parametrize("seed", range(3))
def test_no_threshold_rises_along_the_path(seed: int) -> None:
    path = all_settings(observations(seed))
    assert len(path) > 20
    for careful, bold in pairwise(path):
        assert set(careful.thresholds) <= set(bold.thresholds) and careful != bold
        assert all(bold.thresholds[layer] <= t for layer, t in careful.thresholds.items())


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("limit", [0.005, 0.05, 0.3])
def test_what_a_setting_promises_is_what_leaving_by_its_thresholds_gives(limit: float, whole: bool) -> None:
    seen = observations(7, 9000)
    settings = all_settings(seen, whole=whole)
    (place,) = choose(settings, [limit])
    setting = settings[place]
    saved, wrong_in = 0.0, [0] * seen.count
    for text, row, wrong in zip(seen.texts, seen.confidences, seen.differs, strict=True):
        for k, layer in enumerate(seen.layers):
            if row[k] >= setting.thresholds.get(layer, 2.0):
                wrong_in[text] += int(wrong[k])
                saved += (1 - layer / 30) / len(seen.weights)
                break
    loss = sum(map(bool, wrong_in)) / seen.count if whole else sum(wrong_in) / len(seen.weights)
    assert setting.expected_loss == pytest.approx(loss) and loss <= limit
    assert setting.expected_saving == pytest.approx(saved) and saved > 0


def test_an_exit_that_is_never_right_gets_no_threshold() -> None:
    seen = observations(1)
    seen.differs[:, 0] = True
    settings = all_settings(seen)
    (place,) = choose(settings, [0.2])
    assert place > 0 and all(list(setting.thresholds) == [20] for setting in settings[: place + 1])
    seen.differs[:, 1] = True
    assert choose(all_settings(seen), [0.05]) == []


def test_the_boldest_setting_within_each_limit_is_chosen_once() -> None:
    settings = [Setting({1: 1 - i / 10}, loss, 0.0) for i, loss in enumerate((0.1, 0.2, 0.15, 0.4, 0.6))]
    assert choose(settings, [0.05, 0.1, 0.12, 0.2, 0.5]) == [0, 2, 3]


def test_measured_losses_correct_the_settings_between_them() -> None:
    settings = [Setting({1: 1 - i / 10}, 0.0, i / 9) for i in range(10)]
    path = corrected(settings, [0, 2, 4, 6], [0.1, 0.3, 0.2, 0.5])
    assert [s.expected_loss for s in path] == pytest.approx([0.1, 0.2, 0.3, 0.3, 0.3, 0.4, 0.5])
    assert [s.thresholds for s in path] == [s.thresholds for s in settings[:7]]
