"""A T5 that writes: one token a sequence at a time, with K and V of the tokens before kept."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from offramp.tune.t5 import DenseT5, Encoded

Leave = Callable[[int, Tensor], Tensor]
"""Takes a count of decoder layers and the hidden states behind them [sequences, width]; says which sequences' tokens
leave there, or have left before: bool [sequences]."""


class T5Writer:
    """Decodes step by step.

    A token that leaves keeps its hidden state, and the layers above project their K and V from that: the fill of CALM,
    in the step itself.

    Args:
        model: what decodes, without dropout.
        encoded: the sources.
        longest: tokens that are written at most.
    """

    def __init__(self, model: DenseT5, encoded: Encoded, longest: int) -> None:
        self._model, self._bias = model, encoded.bias
        spec, rows = model.spec, len(encoded.states)
        layers = range(spec.num_layers)
        self._cross = [
            model.heads(encoded.states, f"decoder.block.{i}.layer.1.EncDecAttention.", *"kv") for i in layers
        ]
        size = (spec.num_layers, 2, rows, spec.num_heads, longest, spec.head_dim)
        self._own = encoded.states.new_zeros(size)
        places = torch.arange(longest, device=encoded.states.device)
        self._near = model.position_bias("decoder", places, places)
        self._place = 0

    def step(self, tokens: Tensor, leave: Leave) -> Tensor:
        """Hidden states [sequences, width] behind the last layer that each of `tokens` [sequences] has run."""
        model, place = self._model, self._place
        hidden = F.embedding(tokens[:, None], model.head)
        left = torch.zeros_like(tokens, dtype=torch.bool)
        for layer in range(model.spec.num_layers):
            if layer:
                left = leave(layer, hidden[:, 0])
            hidden = torch.where(left[:, None, None], hidden, self._layer(layer, hidden))
        self._place = place + 1
        return hidden[:, 0]

    def back(self) -> None:
        """Take the last step back."""
        self._place -= 1

    def keep(self, rows: Tensor) -> None:
        """Go on with some of the sequences, int64 [some]."""
        self._cross = [(k[rows], v[rows]) for k, v in self._cross]
        self._own, self._bias = self._own[:, :, rows], self._bias[rows]

    def _layer(self, index: int, hidden: Tensor) -> Tensor:
        """One layer over [sequences, 1, width]; writes K and V, of tokens that have left too."""
        model, end = self._model, self._place + 1
        prefix = f"decoder.block.{index}.layer."
        own, cross = f"{prefix}0.SelfAttention.", f"{prefix}1.EncDecAttention."
        q, k, v = model.heads(model.norm(hidden, f"{prefix}0.layer_norm.weight"), own, *"qkv")
        cache = self._own[index]
        cache[0, :, :, end - 1], cache[1, :, :, end - 1] = k[:, :, 0], v[:, :, 0]
        near = self._near[:, :, end - 1 : end, :end]
        hidden = hidden + model.mix(own, q, cache[0, :, :, :end], cache[1, :, :, :end], near)
        (q,) = model.heads(model.norm(hidden, f"{prefix}1.layer_norm.weight"), cross, "q")
        k, v = self._cross[index]
        hidden = hidden + model.mix(cross, q, k, v, self._bias)
        return hidden + model.mlp(f"{prefix}2.", hidden)
