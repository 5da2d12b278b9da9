"""The losses of CALM (Schuster et al. 2022): of all exits, and of the classifiers that say when to leave."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from offramp.tune.settings import ExitWeights
from offramp.tune.sizes import sizes

RAREST = 1e-3
"""Neither label is taken to be rarer."""


def exit_weights(kind: ExitWeights, depth: int) -> list[float]:
    """The weight of the loss behind each of `depth` layers, which add up to 1: of layer i it is in proportion to i
    (`linear`, CALM's own), to 1 (`uniform`) or to 2^i (`doubling`)."""
    layers = range(1, depth + 1)
    if kind == "linear":
        weights = [float(i) for i in layers]
    else:
        weights = [1.0 if kind == "uniform" else 2.0 ** (i - depth) for i in layers]
    return [weight / sum(weights) for weight in weights]


def head_loss(met: Tensor, head: Tensor, target: Tensor) -> Tensor:
    """Summed cross-entropy of the tokens `target` [rows] under the logits `met` [rows, width] times `head`
    [vocabulary, width], which is multiplied in the type of `met`. Logits are not kept: gradients are made with them."""
    loss: Tensor = _HeadLoss.apply(met, head, target)  # type: ignore[no-untyped-call]
    return loss


class _HeadLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, met: Tensor, head: Tensor, target: Tensor) -> Tensor:
        matrix = head.to(met.dtype)
        own, of_head, total = torch.empty_like(met), torch.zeros_like(head), head.new_zeros(())
        size = max(1, sizes(met.device).exit_logits // len(head))
        for start in range(0, len(met), size):
            rows = slice(start, start + size)
            places = target[rows, None]
            shares = (met[rows] @ matrix.T).softmax(-1, dtype=torch.float32)
            total -= shares.gather(1, places).clamp_min(torch.finfo(torch.float32).tiny).log().sum()
            shares.scatter_add_(1, places, shares.new_full(places.shape, -1.0))
            gradient = shares.to(met.dtype)
            torch.mm(gradient, matrix, out=own[rows])
            of_head += gradient.T @ met[rows]
        ctx.save_for_backward(own, of_head)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        own, of_head = ctx.saved_tensors
        return own * gradients[0].to(own.dtype), of_head * gradients[0], None


def balanced_loss(logits: Tensor, agrees: Tensor) -> Tensor:
    """Mean binary cross-entropy of each exit [exits], in which tokens that agree with the top count half in all.

    Args:
        logits: of the classifiers, [exits, tokens].
        agrees: whether an exit's choice is the top's, bool [exits, tokens].
    """
    share = agrees.float().mean(1, keepdim=True).clamp(RAREST, 1 - RAREST)
    weight = torch.where(agrees, 0.5 / share, 0.5 / (1 - share))
    return F.binary_cross_entropy_with_logits(logits, agrees.to(logits.dtype), weight, reduction="none").mean(1)


def geometric_loss(logits: Tensor, agrees: Tensor) -> Tensor:
    """The sequential loss: minus the log of the chance that a token, asked at one exit after the other, leaves at the
    first that agrees, or at none if none agrees. What each exit adds to it, mean over tokens, [exits]; see
    `balanced_loss`. Exits above the one where a token should leave learn nothing from it."""
    before = agrees.cumsum(0) - agrees.long() == 0
    return (F.binary_cross_entropy_with_logits(logits, agrees.to(logits.dtype), reduction="none") * before).mean(1)
