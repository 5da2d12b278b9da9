"""The losses of CALM against their formulas, by hand and in plain torch."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from offramp.tune import calm_loss
from offramp.tune.calm_loss import balanced_loss, exit_weights, geometric_loss, head_loss
from offramp.tune.sizes import Sizes


def test_weights_of_exits_by_hand() -> None:
    assert exit_weights("linear", 4) == pytest.approx([0.1, 0.2, 0.3, 0.4])
    assert exit_weights("uniform", 4) == pytest.approx([0.25] * 4)
    assert exit_weights("doubling", 4) == pytest.approx([1 / 15, 2 / 15, 4 / 15, 8 / 15])
    assert sum(exit_weights("doubling", 2000)) == pytest.approx(1)


@pytest.mark.parametrize("at_once", [1, 35, 10_000])
def test_the_loss_of_a_head_and_its_gradients_are_torchs(monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
    monkeypatch.setattr(calm_loss, "sizes", lambda device: Sizes(1, at_once, 1))
    torch.manual_seed(0)
    met, head, target = torch.randn(23, 8), torch.randn(11, 8), torch.randint(0, 11, (23,))
    found = [met.clone().requires_grad_(), head.clone().requires_grad_()]
    wanted = [met.clone().requires_grad_(), head.clone().requires_grad_()]
    loss = 0.3 * head_loss(found[0], found[1], target)
    other = 0.3 * F.cross_entropy(wanted[0] @ wanted[1].T, target, reduction="sum")
    loss.backward()
    other.backward()
    torch.testing.assert_close(loss, other)
    for own, others in zip(found, wanted, strict=True):
        torch.testing.assert_close(own.grad, others.grad)


def test_both_labels_count_half_in_the_balanced_loss() -> None:
    logits = torch.tensor([[2.0, 2.0, 2.0, -1.0]])
    agrees = torch.tensor([[True, True, True, False]])

    def cost(logit: float, label: bool) -> float:
        return math.log(1 + math.exp(-logit if label else logit))

    wanted = 0.5 * cost(2, True) + 0.5 * cost(-1, False)
    assert float(balanced_loss(logits, agrees)) == pytest.approx(wanted)


def test_the_geometric_loss_is_minus_the_log_of_leaving_at_the_first_exit_that_agrees() -> None:
    logits = torch.tensor([[0.5, -1.0, 3.0], [1.0, 2.0, 0.0], [0.3, -0.2, 1.0]])
    agrees = torch.tensor([[False, True, False], [True, False, False], [True, True, False]])
    p = torch.sigmoid(logits).tolist()
    chances = (
        (1 - p[0][0]) * p[1][0],
        p[0][1],
        (1 - p[0][2]) * (1 - p[1][2]) * (1 - p[2][2]),
    )
    wanted = -sum(math.log(chance) for chance in chances) / 3
    assert float(geometric_loss(logits, agrees).sum()) == pytest.approx(wanted)
