"""The model's own head in training, against plain softmax."""

from __future__ import annotations

import pytest
import torch

from offramp.tune.sizes import ON_CPU
from offramp.tune.top import TopHead
from tests.tune.test_loss import SPEC, lm_head, states, top_probs


@pytest.mark.parametrize("logits", [1, 100, 2**23])
def test_a_reading_is_the_distributions(logits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("offramp.tune.sizes.ON_CPU", ON_CPU._replace(top_logits=logits))
    hidden, head = states(30, 0), TopHead(lm_head(), SPEC)
    probs, log_sum = top_probs(hidden)
    reading = head.read(head.states(hidden))
    torch.testing.assert_close(reading.log_sum, log_sum, atol=0.02, rtol=0)
    torch.testing.assert_close(reading.mean, probs @ head.matrix, atol=0.02, rtol=0)
    likely = probs.gather(1, reading.choice[:, None]).squeeze(1)
    assert (likely >= probs.max(-1).values - 0.01).all()


def test_mean_rows_give_the_gradient_of_the_loss() -> None:
    hidden, head = states(30, 0).requires_grad_(), TopHead(lm_head(), SPEC)
    following = torch.arange(30)
    normed = head.states(hidden)
    reading = head.read(normed.detach())
    (gradient,) = torch.autograd.grad(normed, hidden, reading.mean - head.matrix[following])
    logits = head.states(hidden) @ head.matrix.T
    (expected,) = torch.autograd.grad(torch.nn.functional.cross_entropy(logits, following, reduction="sum"), hidden)
    assert float((gradient - expected).norm() / expected.norm()) < 0.02
    loss = reading.log_sum - (normed.detach() * head.matrix[following]).sum(-1)
    plain = torch.nn.functional.cross_entropy(logits, following, reduction="none")
    torch.testing.assert_close(loss, plain.detach(), atol=0.02, rtol=0)
