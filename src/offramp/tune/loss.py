"""The loss of exit heads: KL(top || exit) over the words and "other" (Balcony, Jamialahmadi et al. 2025).

The top's probability of "other" is what it leaves to all tokens that are no words. The whole distribution is matched,
not the best token alone, so that an exit's probabilities can be believed.

The product with the head's matrix is most of the work, so its gradient is written out, softmax(logits) - target, and
products are in `product_dtype`. Targets are computed in float32.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from offramp.executors.torch.layers import rms_norm
from offramp.tune.heads import Head, Inputs, Words
from offramp.tune.products import product_dtype

FADE = 0.8
"""What a step of a rollout weighs against the one before it."""


@dataclass(frozen=True)
class Target:
    """The top's distribution: `probs` [rows, words (+ 1)], and sum(p log p) of each row [rows]."""

    probs: Tensor
    negative_entropy: Tensor


@torch.no_grad()
def target_of(words: Words, top: Tensor, log_sum: Tensor) -> Target:
    """The distribution at final hidden states `top` [rows, hidden_size], whose logits' exponentials sum to
    exp(`log_sum`) [rows]."""
    log_probs = rms_norm(top, words.norm, words.eps) @ words.rows.T
    if not words.outside:
        log_probs = log_probs.log_softmax(-1)
        probs = log_probs.exp()
        return Target(probs, (probs * log_probs).sum(-1))
    log_probs -= log_sum[:, None]
    probs = log_probs.exp()
    inside = probs.sum(-1, keepdim=True)
    # The executor's own arithmetic is behind `log_sum`, so the words may come to a little more than 1.
    probs /= inside.clamp(min=1)
    other = (1 - inside).clamp(min=0)
    entropy = (
        (probs * log_probs).sum(-1) - inside.clamp(min=1).log().squeeze(-1) + torch.xlogy(other, other).squeeze(-1)
    )
    return Target(torch.cat((probs, other), -1), entropy)


def kl_backward(head: Head, inputs: Inputs, target: Target, scale: float, steps: int = 1) -> float:
    """Add the gradient of `scale` times the summed KL to the head's tensors; returns the summed KL of step 1.

    The KL of a later step of a rollout counts `FADE` times as much as that of the step before.
    """
    dtype = product_dtype(inputs.hidden.device)
    with torch.autocast(inputs.hidden.device.type, torch.bfloat16, enabled=dtype is torch.bfloat16):
        rollout = [states.float() for states in head.rollout(inputs, steps)]
    found = [_gradient(head, states, target, scale * FADE**step) for step, states in enumerate(rollout)]
    if rollout[0].requires_grad:
        torch.autograd.backward(rollout, [gradient for _, gradient in found])
    return found[0][0]


def _gradient(head: Head, states: Tensor, target: Target, scale: float) -> tuple[float, Tensor]:
    """The summed KL, and the gradient of `scale` times it by `states` [rows, hidden_size], what meets the head's
    matrix.

    That by the matrix and by "other" is added to these tensors.
    """
    fixed, matrix = states.detach(), head.rough_matrix
    rough = fixed.to(matrix.dtype)
    words = len(matrix)
    logits = torch.empty_like(target.probs)
    logits[:, :words] = rough @ matrix.T
    tensors = head.tensors
    if head.spec.other:
        logits[:, words] = fixed @ tensors["other.weight"].detach()[0] + tensors["other.bias"].detach()
    log_probs = logits.log_softmax(-1)
    kl = float((target.negative_entropy - (target.probs * log_probs).sum(-1)).sum())
    error = log_probs.exp_().sub_(target.probs).mul_(scale)
    rough_error = error[:, :words].to(matrix.dtype)
    gradient = (rough_error @ matrix).float()
    if head.spec.head == "own":
        _add_gradient(tensors["head.weight"], (rough_error.T @ rough).float())
    if head.spec.other:
        last = error[:, words:]
        gradient += last * tensors["other.weight"].detach()
        _add_gradient(tensors["other.weight"], last.T @ fixed)
        _add_gradient(tensors["other.bias"], last.sum(0))
    return kl, gradient


def _add_gradient(tensor: Tensor, gradient: Tensor) -> None:
    tensor.grad = gradient if tensor.grad is None else tensor.grad.add_(gradient)
