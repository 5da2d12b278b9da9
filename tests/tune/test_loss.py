"""The loss against autograd, and against the full distribution."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from offramp.models.spec import ModelSpec
from offramp.tune.heads import Head, Inputs, Words, new_head
from offramp.tune.loss import FADE, kl_backward, target_of
from offramp.tune.settings import HeadSettings
from offramp.tune.trunk import LmHead
from tests.toy import DictSource, toy_spec, toy_weights

SPEC = toy_spec()
WEIGHTS = toy_weights(SPEC)
KINDS: list[dict[str, Any]] = [
    {"adapter": "none", "head_words": 20},
    {"adapter": "linear", "head_words": 20},
    {"adapter": "mlp", "head_words": 20, "norm": "shared"},
    {"adapter": "mlp", "head_words": 20, "head": "own"},
    {"adapter": "mlp", "head_words": 0, "norm": "none"},
]


def lm_head(spec: ModelSpec = SPEC) -> LmHead:
    return LmHead(spec, DictSource(WEIGHTS))


def words(count: int) -> Words:
    ids = range(1, 2 * count, 2) if count else range(SPEC.vocab_size)
    return Words.of(ids, lm_head(), SPEC)


def states(rows: int, seed: int) -> Tensor:
    return torch.randn((rows, SPEC.hidden_size), generator=torch.Generator().manual_seed(seed))


def top_probs(top: Tensor) -> tuple[Tensor, Tensor]:
    """The top's probabilities [rows, vocab] and log sums [rows], plainly."""
    norm = torch.tensor(WEIGHTS["model.norm.weight"])
    normed = norm * top / (top.square().mean(-1, keepdim=True) + SPEC.rms_norm_eps).sqrt()
    logits = normed @ torch.tensor(WEIGHTS["lm_head.weight"]).T
    return logits.softmax(-1), logits.logsumexp(-1)


def random_head(chosen: dict[str, Any]) -> Head:
    settings = HeadSettings(**{"adapter_size": 8, **chosen})
    head = new_head(2, settings, words(settings.head_words), SPEC, seed=0)
    random = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for tensor in head.tensors.values():
            tensor += 0.2 * torch.randn(tensor.shape, generator=random)
    return head


@pytest.mark.parametrize("count", [20, 0])
def test_the_target_is_the_tops_distribution_with_the_rest_in_other(count: int) -> None:
    top, some = states(30, 0), words(count)
    probs, log_sum = top_probs(top)
    expected = probs[:, some.ids]
    if count:
        expected = torch.cat((expected, 1 - expected.sum(-1, keepdim=True)), -1)
    target = target_of(some, top, log_sum)
    torch.testing.assert_close(target.probs, expected, atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(target.negative_entropy, (expected * expected.log()).sum(-1), atol=1e-5, rtol=1e-4)


def test_a_sum_that_is_a_little_too_small_leaves_a_distribution() -> None:
    top, some = states(30, 0), words(20)
    probs, log_sum = top_probs(top)
    inside = probs[:, some.ids].sum(-1)
    target = target_of(some, top, log_sum + inside.log() - 0.01)
    torch.testing.assert_close(target.probs.sum(-1), torch.ones(30))
    assert (target.probs[:, -1] == 0).all()
    entropy = (target.probs[:, :-1] * target.probs[:, :-1].log()).sum(-1)
    torch.testing.assert_close(target.negative_entropy, entropy, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("chosen", KINDS)
def test_kl_and_gradients_are_those_of_autograd(chosen: dict[str, Any]) -> None:
    head, hidden, top = random_head(chosen), states(64, 3), states(64, 4)
    target = target_of(head.words, top, top_probs(top)[1])
    kl = kl_backward(head, Inputs(hidden), target, scale=1 / 64)
    found = {name: t.grad for name, t in head.tensors.items()}
    for tensor in head.tensors.values():
        tensor.grad = None
    (x,) = head.rollout(Inputs(hidden))
    logits = x @ head.matrix.T
    if head.spec.other:
        logits = torch.cat((logits, x @ head.tensors["other.weight"].T + head.tensors["other.bias"]), -1)
    loss = torch.nn.functional.kl_div(logits.log_softmax(-1), target.probs, reduction="sum")
    (loss / 64).backward()
    assert kl == pytest.approx(float(loss.detach()), rel=2e-2)
    for name, tensor in head.tensors.items():
        gradient = found[name]
        assert gradient is not None and tensor.grad is not None, name
        error = float((gradient - tensor.grad).norm() / tensor.grad.norm())
        assert error < 3e-2, name  # bfloat16


def test_gradients_add_up_over_chunks() -> None:
    head, hidden, top = random_head(KINDS[3]), states(64, 3), states(64, 4)
    sums = top_probs(top)[1]
    kl_backward(head, Inputs(hidden), target_of(head.words, top, sums), 1.0)
    whole = {name: t.grad.clone() for name, t in head.tensors.items() if t.grad is not None}
    for tensor in head.tensors.values():
        tensor.grad = None
    for part in (slice(0, 20), slice(20, 64)):
        kl_backward(head, Inputs(hidden[part]), target_of(head.words, top[part], sums[part]), 1.0)
    for name, tensor in head.tensors.items():
        assert tensor.grad is not None
        torch.testing.assert_close(tensor.grad, whole[name], rtol=2e-2, atol=2e-2 * float(whole[name].abs().max()))


def test_an_untrained_head_is_the_models_own() -> None:
    hidden = states(20, 5)
    head = new_head(2, HeadSettings(adapter_size=8, head_words=0), words(0), SPEC, seed=0)
    torch.testing.assert_close(head.logits(Inputs(hidden)).softmax(-1), top_probs(hidden)[0], atol=1e-6, rtol=1e-4)


def deep_inputs() -> Inputs:
    """24 tokens, of which the first and the tenth follow none."""
    follows = torch.ones(24, dtype=torch.bool)
    follows[[0, 9]] = False
    return Inputs(states(24, 3), states(24, 6), follows)


def test_a_rollout_reads_its_own_states_of_the_tokens_before() -> None:
    head, (hidden, past, follows) = random_head({"adapter": "mlp", "head_words": 20, "past": "deep"}), deep_inputs()
    assert past is not None and follows is not None
    steps = head.rollout(Inputs(hidden, past, follows), 3)
    assert len(steps) == 3
    for row in range(24):
        depth = 0  # tokens before that a rollout can replace
        while depth < 2 and follows[row - depth]:
            depth += 1
        state = past[row - depth]
        for at in range(row - depth, row + 1):
            state = head._deep_states(hidden[at : at + 1], state[None])[0]
        torch.testing.assert_close(steps[2][row], head._norm(state[None])[0])
    torch.testing.assert_close(steps[0], head._norm(head._deep_states(hidden, past)))


def test_the_gradient_of_a_rollout_is_that_of_autograd() -> None:
    head, inputs, top = random_head({"adapter": "mlp", "head_words": 20, "past": "deep"}), deep_inputs(), states(24, 4)
    target = target_of(head.words, top, top_probs(top)[1])
    kl_backward(head, inputs, target, 1.0, steps=3)
    found = {name: t.grad for name, t in head.tensors.items()}
    for tensor in head.tensors.values():
        tensor.grad = None
    loss = torch.zeros(())
    for step, x in enumerate(head.rollout(inputs, 3)):
        other = x @ head.tensors["other.weight"].T + head.tensors["other.bias"]
        log_probs = torch.cat((x @ head.matrix.T, other), -1).log_softmax(-1)
        loss = loss + FADE**step * torch.nn.functional.kl_div(log_probs, target.probs, reduction="sum")
    loss.backward()
    for name, tensor in head.tensors.items():
        gradient = found[name]
        assert gradient is not None and tensor.grad is not None, name
        assert float((gradient - tensor.grad).norm() / tensor.grad.norm()) < 5e-2, name  # bfloat16
