"""Who leaves in training: tokens that an exit is sure of, as they will when they are served under `fill`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from offramp.tune.batches import Batch
from offramp.tune.heads import Head, Inputs

LEAST_SURE = 0.6
"""The lowest threshold that is drawn; the highest is 1."""


class Leaving:
    """Says at each tap of a batch which tokens have left; a `offramp.tune.dense.Leave`.

    Each sequence lets tokens leave with probability `share`, at a threshold of `max_prob` drawn for it. The first token
    of an answer never leaves, as the last one of a prompt is always chosen at the top.

    Args:
        heads: one for each exit.
        batch: the sequences.
        share: 0 to 1.
        seed: of what is drawn.
    """

    def __init__(self, heads: Sequence[Head], batch: Batch, share: float, seed: Sequence[int]) -> None:
        self._heads = {head.spec.layer: head for head in heads}
        sequences, width = batch.ids.shape
        draw = np.random.default_rng([*seed, 1])
        leaves = draw.random(sequences) < share
        device = batch.ids.device
        sure = torch.from_numpy(np.where(leaves, draw.uniform(LEAST_SURE, 1, sequences), np.inf)).to(device)
        lines = batch.rows // width
        later = lines.diff(prepend=lines.new_tensor([-1])) == 0
        self._rows, self._sure = batch.rows[later], sure[lines[later]]
        self._left = torch.zeros((sequences, width), dtype=torch.bool, device=device)

    @torch.no_grad()
    def __call__(self, layer: int, hidden: Tensor) -> Tensor:
        """Who has left, `layer` included: bool [sequences, tokens], of hidden states [sequences, tokens,
        hidden_size]."""
        head = self._heads[layer]
        probs = head.logits(Inputs(hidden.flatten(0, 1)[self._rows])).softmax(-1)
        best, winner = probs.max(-1)
        self._left = self._left.clone()
        self._left.view(-1)[self._rows] |= (best >= self._sure) & (winner < len(head.words.ids))
        return self._left

    def stayed(self, batch: Batch) -> Batch:
        """The batch without the rows of tokens that have left."""
        stay = ~self._left.flatten()[batch.rows]
        return batch._replace(rows=batch.rows[stay], next=batch.next[stay])
