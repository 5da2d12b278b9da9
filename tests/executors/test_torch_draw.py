"""How the torch executor looks at few columns first."""

from __future__ import annotations

import math

import pytest
import torch

from offramp.executors.torch.draw import candidates
from offramp.types.sampling import SamplingParams
from tests.executors.toys import Toy, make_toy, score_hidden, states


@pytest.fixture(scope="module")
def toy() -> Toy:
    return make_toy()


@pytest.mark.parametrize(
    "fields", [{"top_k": 3}, {"top_k": 30, "top_p": 0.6}, {"top_p": 0.6}, {"top_p": 0.999}, {"min_p": 0.01}]
)
def test_looking_at_few_columns_first_changes_no_draw(
    toy: Toy, fields: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    hidden, sampling = states(toy, rows=60), SamplingParams(**{"temperature": 2.0, **fields})  # type: ignore[arg-type]
    wide = score_hidden(toy.executor(), 1, hidden, sampling)
    monkeypatch.setattr("offramp.executors.torch.draw.NARROW", 8)
    assert score_hidden(toy.executor(), 1, hidden, sampling) == wide


@pytest.mark.parametrize(
    ("limits", "settled"),
    [((2, 1, 0), True), ((3, 1, 0), False), ((0, 0.5, 0), True), ((0, 0.99, 0), False), ((0, 1, 0.5), True)],
)
def test_candidates_are_settled_only_if_no_other_column_could_be_kept(
    limits: tuple[float, float, float], settled: bool
) -> None:
    """Three columns of 0.4, 0.3, 0.1, ...: the third must be dropped before the rest need not be looked at."""
    scaled = torch.tensor([[0.1, 0.4, 0.3, 0.1, 0.1]], dtype=torch.float64).log()
    columns, values, certain = candidates(scaled, torch.tensor([limits], dtype=torch.float64), width=3)
    assert columns[0, :2].tolist() == [1, 2]
    assert bool(values[0, 2] == -math.inf) == settled
    assert certain.tolist() == [settled]


def test_a_tie_with_the_last_candidate_is_not_settled() -> None:
    """`top_k` 2 keeps the lower of two equal ids, which need not be the one that was looked at."""
    scaled = torch.tensor([[0.2, 0.4, 0.2, 0.2]], dtype=torch.float64).log()
    limits = torch.tensor([[2.0, 1.0, 0.0]], dtype=torch.float64)
    assert candidates(scaled, limits, width=3)[2].tolist() == [False]
    columns, values, settled = candidates(scaled, limits, width=4)
    assert (columns[0].tolist(), settled.tolist()) == ([1, 0, 2, 3], [True])
    assert values[0].isfinite().tolist() == [True, True, False, False]
