"""The model's own head in training: its loss, without a pass over the vocabulary more than need be.

The gradient of a cross-entropy with respect to what meets the LM head is the mean row of the head under the model's
distribution, less the mean row under the target's. So a target enters by its mean row alone: that of a token is the
token's own, that of another distribution is read off once. Products are in `product_dtype`; what they give for the
likeliest token is put right in float32, so that a sum does not carry their rounding.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from offramp.executors.torch.layers import rms_norm
from offramp.models.spec import ModelSpec
from offramp.tune.products import product_dtype
from offramp.tune.sizes import CPU, sizes
from offramp.tune.trunk import LmHead


class Reading(NamedTuple):
    """What the LM head says about some states.

    `mean` [rows, hidden_size]: its mean row under the distribution; `log_sum` [rows]: the log of the sum of
    exp(logits); `choice` [rows]: the likeliest token.
    """

    mean: Tensor
    log_sum: Tensor
    choice: Tensor


class TopHead:
    """Final norm and LM head as tensors. Neither is trained."""

    def __init__(self, lm_head: LmHead, spec: ModelSpec, device: torch.device = CPU) -> None:
        self.matrix = torch.tensor(lm_head.matrix, dtype=torch.float32, device=device)
        self._rough, self._eps = self.matrix.to(product_dtype(device)), spec.rms_norm_eps
        self._norm = torch.tensor(lm_head.norm, dtype=torch.float32, device=device)

    def states(self, hidden: Tensor) -> Tensor:
        """What meets the LM head: [rows, hidden_size], of final hidden states."""
        return rms_norm(hidden, self._norm, self._eps)

    @torch.no_grad()
    def logits(self, states: Tensor) -> Tensor:
        """All logits [rows, vocab_size], in float32."""
        return states @ self.matrix.T

    @torch.no_grad()
    def read(self, states: Tensor) -> Reading:
        """What the LM head says about `states` [rows, hidden_size]."""
        size = max(1, sizes(states.device).top_logits // len(self.matrix))
        parts = [self._read(states[start : start + size]) for start in range(0, len(states), size)]
        return Reading(*(torch.cat(columns) for columns in zip(*parts, strict=True)))

    def _read(self, states: Tensor) -> Reading:
        probs = (states.to(self._rough.dtype) @ self._rough.T).softmax(-1)
        largest, choice = probs.max(-1)
        logit = (states * self.matrix[choice]).sum(-1)
        return Reading((probs @ self._rough).float(), logit - largest.float().log(), choice)
