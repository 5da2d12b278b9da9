"""A model with its trunk adapter, run over whole sequences with gradients.

Weights of the trunk are frozen and in the type of products, bfloat16 where the device is fast at it (`product_dtype`).
Hidden states, norms and factors are float32.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from copy import copy

import torch
from torch import Tensor
from torch.nn import functional as F

from offramp.executors.torch.layers import Rotary, Rotation
from offramp.executors.torch.weights import to_tensor
from offramp.models.spec import ModelSpec
from offramp.tune.autograd import adapted, norm, rotate
from offramp.tune.products import product_dtype
from offramp.tune.sizes import CPU
from offramp.weights.source import WeightSource

SHORT = 256
"""Up to so many tokens, attention is faster in plain products: torch's own is slow to differentiate."""

Skip = Callable[[int], Tensor | None]
"""Takes a layer from 0; says which sequences run it: int64 [some], or None for all."""


Leave = Callable[[int, Tensor], Tensor]
"""Takes a tap and the hidden states there; says which tokens have left by now: bool [sequences, tokens]."""

Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]
"""Takes a layer from 0, and its q, k and v [sequences, tokens, heads, head_dim]; returns [sequences, tokens,
heads * head_dim]."""


def skip_none(layer: int) -> None:
    """Every sequence runs every layer."""


class DenseTrunk:
    """The layers of a model.

    Args:
        spec: the model.
        weights: its tensors.
        factors: its trunk adapter's, by their names in a pack; may be none.
        dtype: of weights and products; None is `product_dtype`.
        device: where they are.

    Attributes:
        depth: the number of layers.
    """

    def __init__(
        self,
        spec: ModelSpec,
        weights: WeightSource,
        factors: Mapping[str, Tensor],
        dtype: torch.dtype | None = None,
        device: torch.device = CPU,
    ) -> None:
        self.factors, self.depth = factors, spec.num_layers
        self.spec, self.dtype, self.device = spec, dtype or product_dtype(device), device
        self._embedding = to_tensor(weights.load("model.embed_tokens.weight"), device, self.dtype)
        self._layers = [self._load(weights, f"model.layers.{index}.") for index in range(spec.num_layers)]
        self._rotary = Rotary(spec, device, self.dtype)

    def original(self) -> DenseTrunk:
        """The model without its trunk adapter, over the same weights."""
        plain = copy(self)
        plain.factors = {}
        return plain

    def rotations(self, length: int) -> Rotation:
        """The rotary embedding of positions below `length`."""
        return self._rotary.at(range(length))

    def step(self, tokens: Tensor, rotation: Rotation, attend: Attend) -> Tensor:
        """Final hidden states [sequences, hidden_size] of `tokens` [sequences], one of each sequence, all at the same
        position, whose `rotation` it is; `attend` knows what came before."""
        hidden = F.embedding(tokens[:, None], self._embedding).float()
        for index in range(self.depth):
            hidden = self._layer(index, hidden, rotation, attend)
        return hidden[:, 0]

    def run(self, ids: Tensor, taps: Sequence[int], skip: Skip = skip_none, leave: Leave | None = None) -> list[Tensor]:
        """Hidden states [sequences, tokens, hidden_size] after each of `taps` layers, ascending.

        Where a token has left, its hidden state stays as it is, and the layers above project their K and V from that,
        as under `fill`.

        `ids` is int64 [sequences, tokens]; what pads a sequence comes last, and nothing before attends to it.
        """
        hidden = F.embedding(ids, self._embedding).float()
        rotation = self._rotary.at(range(ids.shape[1]))
        found: list[Tensor] = []
        left: Tensor | None = None
        for layer in range(taps[-1] + 1):
            if layer:
                some, before = skip(layer - 1), hidden
                if some is None:
                    hidden = self._layer(layer - 1, hidden, rotation, self._attend)
                elif len(some):
                    ran = self._layer(layer - 1, hidden[some], rotation, self._attend)
                    hidden = hidden.index_copy(0, some, ran)
                if left is not None:
                    hidden = torch.where(left[..., None], before, hidden)
            if layer in taps:
                found.append(hidden)
                left = None if leave is None or layer == taps[-1] else leave(layer, hidden)
        return found

    def _load(self, weights: WeightSource, prefix: str) -> dict[str, Tensor]:
        """The tensors of a layer by their names behind `prefix`: matrices in `dtype`, norms and biases in float32."""
        found = {}
        for name in weights.shapes():
            if name.startswith(prefix):
                tensor = to_tensor(weights.load(name), self.device, torch.float32)
                found[name.removeprefix(prefix)] = tensor.to(self.dtype) if tensor.dim() == 2 else tensor
        return found

    def _layer(self, index: int, hidden: Tensor, rotation: Rotation, attend: Attend) -> Tensor:
        """One decoder layer over [sequences, tokens, hidden_size]."""
        spec, layer = self.spec, self._layers[index]
        rows = hidden.shape[:2]

        def heads(name: str, states: Tensor) -> Tensor:
            """[sequences, tokens, heads, head_dim]"""
            split = states.view(*rows, -1, spec.head_dim)
            norm = layer.get(f"self_attn.{name}_norm.weight")
            return split if norm is None else self._norm(split, norm)

        x = self._norm(hidden, layer["input_layernorm.weight"]).flatten(0, 1)
        q, k, v = self._linear(index, x, "self_attn.q", "self_attn.k", "self_attn.v")
        q, k = (rotate(heads(name, states), *rotation) for name, states in (("q", q), ("k", k)))
        attended = attend(index, q, k, heads("v", v)).flatten(0, 1)
        hidden = hidden + self._linear(index, attended, "self_attn.o")[0].view_as(hidden)
        x = self._norm(hidden, layer["post_attention_layernorm.weight"]).flatten(0, 1)
        gate, up = self._linear(index, x, "mlp.gate", "mlp.up")
        return hidden + self._linear(index, F.silu(gate) * up, "mlp.down")[0].view_as(hidden)

    def _linear(self, index: int, x: Tensor, *names: str) -> tuple[Tensor, ...]:
        """W x + b + B A x of several linear layers over the same x [rows, columns]."""
        layer, prefix = self._layers[index], f"model.layers.{index}."
        parts = []
        for name in names:
            weight = f"{name}_proj.weight"
            a, b = (self.factors.get(f"{prefix}{weight}.lora_{part}") for part in "ab")
            parts.append((layer[weight], layer.get(f"{name}_proj.bias"), a, b))
        return adapted(x, parts)

    def _norm(self, x: Tensor, weight: Tensor) -> Tensor:
        return norm(x, weight, self.spec.rms_norm_eps, self.dtype)

    def _attend(self, index: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Causal attention; an `Attend`."""
        tokens, kv_heads, window = q.shape[1], self.spec.num_kv_heads, self.spec.window_at(index)
        q, k, v = (states.transpose(1, 2) for states in (q, k, v))
        if window is None and q.device.type != "cpu":
            attended = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
            return attended.transpose(1, 2).flatten(2)
        near = torch.ones((tokens, tokens), dtype=torch.bool, device=q.device).tril()
        if window is not None:
            near = near.triu(1 - window)
        if tokens > SHORT or q.device.type != "cpu":
            attended = F.scaled_dot_product_attention(q, k, v, attn_mask=near, enable_gqa=True)
            return attended.transpose(1, 2).flatten(2)
        # [sequences, kv_heads, group, tokens, head_dim]
        q = q.reshape(len(q), kv_heads, -1, *q.shape[2:]) * self.spec.head_dim**-0.5
        scores = (q.flatten(2, 3) @ k.transpose(-1, -2)).view(*q.shape[:-1], tokens).masked_fill_(~near, -math.inf)
        shares = scores.softmax(-1, dtype=torch.float32).to(self.dtype)
        attended = shares.flatten(2, 3) @ v
        return attended.view_as(q).flatten(1, 2).transpose(1, 2).flatten(2)
