"""A model with its trunk adapter, run over whole sequences with gradients.

Weights of the trunk are frozen and in bfloat16, which matrix units are made for; so are all products. Hidden states,
norms and factors are float32.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from offramp.executors.torch.layers import Rotary, Rotation
from offramp.executors.torch.weights import to_tensor
from offramp.models.spec import ModelSpec
from offramp.weights.source import WeightSource

CPU = torch.device("cpu")

SHORT = 256
"""Up to so many tokens, attention is faster in plain products: torch's own is slow to differentiate."""

Skip = Callable[[int], Tensor | None]
"""Takes a layer from 0; says which sequences run it: int64 [some], or None for all."""


def skip_none(layer: int) -> None:
    """Every sequence runs every layer."""


class DenseTrunk:
    """The layers of a model.

    Args:
        spec: the model.
        weights: its tensors.
        factors: its trunk adapter's, by their names in a pack; may be none.
        dtype: of weights and products.

    Attributes:
        depth: the number of layers.
    """

    def __init__(
        self,
        spec: ModelSpec,
        weights: WeightSource,
        factors: Mapping[str, Tensor],
        dtype: torch.dtype = torch.bfloat16,
    ) -> None:
        self.factors, self.depth = factors, spec.num_layers
        self._spec, self._dtype = spec, dtype
        self._embedding = to_tensor(weights.load("model.embed_tokens.weight"), CPU, dtype)
        self._layers = [self._load(weights, f"model.layers.{index}.") for index in range(spec.num_layers)]
        self._rotary = Rotary(spec, CPU, dtype)

    def run(self, ids: Tensor, taps: Sequence[int], skip: Skip = skip_none) -> list[Tensor]:
        """Hidden states [sequences, tokens, hidden_size] after each of `taps` layers, ascending.

        `ids` is int64 [sequences, tokens]; what pads a sequence comes last, and nothing before attends to it.
        """
        hidden = F.embedding(ids, self._embedding).float()
        rotation = self._rotary.at(range(ids.shape[1]))
        found = []
        for index in range(taps[-1]):
            some = skip(index)
            if some is None:
                hidden = self._layer(index, hidden, rotation)
            elif len(some):
                hidden = hidden.index_copy(0, some, self._layer(index, hidden[some], rotation))
            if index + 1 in taps:
                found.append(hidden)
        return found

    def _load(self, weights: WeightSource, prefix: str) -> dict[str, Tensor]:
        """The tensors of a layer by their names behind `prefix`: matrices in `dtype`, norms and biases in float32."""
        found = {}
        for name in weights.shapes():
            if name.startswith(prefix):
                tensor = to_tensor(weights.load(name), CPU, torch.float32)
                found[name.removeprefix(prefix)] = tensor.to(self._dtype) if tensor.dim() == 2 else tensor
        return found

    def _layer(self, index: int, hidden: Tensor, rotation: Rotation) -> Tensor:
        """One decoder layer over [sequences, tokens, hidden_size]."""
        spec, layer = self._spec, self._layers[index]
        rows = hidden.shape[:2]

        def linear(name: str, x: Tensor) -> Tensor:
            return self._linear(f"model.layers.{index}.{name}_proj", layer, f"{name}_proj", x)

        def heads(name: str) -> Tensor:
            """[sequences, tokens, heads, head_dim]"""
            states = linear(f"self_attn.{name}", x).view(*rows, -1, spec.head_dim)
            norm = layer.get(f"self_attn.{name}_norm.weight")
            return states if norm is None else self._norm(states, norm)

        x = self._norm(hidden, layer["input_layernorm.weight"])
        q, k, v = rotation.apply(heads("q")), rotation.apply(heads("k")), heads("v")
        attended = self._attend(q, k, v, spec.window_at(index))
        hidden = hidden + linear("self_attn.o", attended)
        x = self._norm(hidden, layer["post_attention_layernorm.weight"])
        return hidden + linear("mlp.down", F.silu(linear("mlp.gate", x)) * linear("mlp.up", x))

    def _linear(self, full: str, layer: Mapping[str, Tensor], name: str, x: Tensor) -> Tensor:
        """W x + b + B A x."""
        bias = layer.get(f"{name}.bias")
        y = F.linear(x, layer[f"{name}.weight"], None if bias is None else bias.to(self._dtype))
        a, b = (self.factors.get(f"{full}.weight.lora_{part}") for part in "ab")
        if a is None or b is None:
            return y
        low = F.linear(x, a.to(self._dtype)).flatten(0, 1)
        return torch.addmm(y.flatten(0, 1), low, b.to(self._dtype).T).view_as(y)

    def _norm(self, x: Tensor, weight: Tensor) -> Tensor:
        normed: Tensor = RmsNorm.apply(  # type: ignore[no-untyped-call]
            x, weight, self._spec.rms_norm_eps, self._dtype
        )
        return normed

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, window: int | None) -> Tensor:
        """Causal attention over [sequences, tokens, heads, head_dim]; returns [sequences, tokens, heads * head_dim]."""
        group, tokens = self._spec.num_heads // self._spec.num_kv_heads, q.shape[1]
        k, v = (states.repeat_interleave(group, dim=2) for states in (k, v))
        q, k, v = (states.transpose(1, 2) for states in (q, k, v))
        near = torch.ones((tokens, tokens), dtype=torch.bool).tril()
        if window is not None:
            near = near.triu(1 - window)
        if tokens > SHORT:
            attended = F.scaled_dot_product_attention(q, k, v, attn_mask=near)
        else:
            scores = (q @ k.transpose(-1, -2)).float().mul_(self._spec.head_dim**-0.5).masked_fill_(~near, -math.inf)
            attended = scores.softmax(-1).to(self._dtype) @ v
        return attended.transpose(1, 2).flatten(2)


class RmsNorm(torch.autograd.Function):
    """RMSNorm over the last dimension with frozen weights: fewer passes over memory than its parts would make."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float, dtype: torch.dtype) -> Tensor:
        wide = x.float()
        scale = torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
        ctx.save_for_backward(x, weight, scale)
        return (wide * scale).mul_(weight).to(dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        x, weight, scale = ctx.saved_tensors
        wide = x.float()
        gradient = gradients[0] * weight
        along = (gradient * wide).mean(-1, keepdim=True).mul_(scale**3)
        return gradient.mul_(scale).sub_(wide * along).to(x.dtype), None, None, None
