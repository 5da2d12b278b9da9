"""The pieces of a layer of the Llama line. Norms compute in float32 at least."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from offramp.executors.torch.attention import Attention
from offramp.executors.torch.store import PagedStore
from offramp.executors.torch.weights import LayerWeights, PassWeights
from offramp.models import ModelSpec, Spec, inverse_frequencies


def normalise(x: Tensor, eps: float) -> Tensor:
    """x / rms(x) over the last dimension (Zhang and Sennrich 2019), in float32 at least."""
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    return wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """RMSNorm over the last dimension, in the type of `x`."""
    return (normalise(x, eps) * weight).to(x.dtype)


class Rotation(NamedTuple):
    """The rotary embedding of some rows: cosines and sines [rows, 1, head_dim / 2]."""

    cos: Tensor
    sin: Tensor

    def apply(self, x: Tensor) -> Tensor:
        """Rotate `x` [..., rows, heads, head_dim]; halves of the head form the pairs, as in Hugging Face weights."""
        first, second = x.chunk(2, dim=-1)
        return torch.cat((first * self.cos - second * self.sin, second * self.cos + first * self.sin), dim=-1)


class Rotary:
    """Rotary position embedding (Su et al. 2021). Angles are computed in float64 on the CPU."""

    def __init__(self, spec: ModelSpec, device: torch.device, dtype: torch.dtype) -> None:
        frequencies, self.factor = inverse_frequencies(spec.rope, spec.head_dim)
        self.frequencies = torch.tensor(frequencies, dtype=torch.float64)
        self.device, self.dtype = device, dtype

    def at(self, positions: Sequence[int]) -> Rotation:
        """The rotation of rows at `positions`."""
        angles = torch.tensor(positions, dtype=torch.float64)[:, None, None] * self.frequencies
        return Rotation(*((f(angles) * self.factor).to(self.device, self.dtype) for f in (torch.cos, torch.sin)))


def run_layer(
    spec: ModelSpec,
    index: int,
    weights: LayerWeights,
    hidden: Tensor,
    rotation: Rotation,
    slots: Tensor,
    attention: Attention,
    store: PagedStore,
) -> Tensor:
    """One decoder layer over rows [rows, hidden_size]; writes their K and V before any row attends."""
    heads, kv_heads, eps = spec.num_heads, spec.num_kv_heads, spec.rms_norm_eps
    x = rms_norm(hidden, weights.attention_norm, eps)
    qkv = F.linear(x, weights.qkv, weights.qkv_bias).view(len(x), -1, spec.head_dim)
    q, k, v = qkv.tensor_split((heads, heads + kv_heads), dim=1)
    if weights.q_norm is not None and weights.k_norm is not None:
        q, k = rms_norm(q, weights.q_norm, eps), rms_norm(k, weights.k_norm, eps)
    q, k = rotation.apply(q), rotation.apply(k)
    store.write_kv(slice(index, index + 1), slots, k[None], v[None])
    attended = attention.attend(q, store.keys[index], store.values[index], spec.window_at(index))
    hidden = hidden + F.linear(attended.flatten(1), weights.out, weights.out_bias)
    x = rms_norm(hidden, weights.mlp_norm, eps)
    gate, up = F.linear(x, weights.gate_up, weights.gate_up_bias).chunk(2, dim=-1)
    return hidden + F.linear(F.silu(gate) * up, weights.down, weights.down_bias)


def project_passed(
    spec: Spec, layers: slice, weights: PassWeights, hidden: Tensor, rotation: Rotation | None
) -> tuple[Tensor, Tensor]:
    """K and V of hidden states [rows, hidden_size] in all `layers` at once: [layers, rows, kv_heads, head_dim] each.

    Hidden-state propagation (CALM, Schuster et al. 2022) as one GEMM.
    """
    x = normalise(hidden, spec.rms_norm_eps).to(hidden.dtype)
    projections = weights.kv[layers]
    bias = None if weights.bias is None else weights.bias[layers].flatten()
    kv = F.linear(x, projections.flatten(0, 2), bias)
    k, v = kv.view(len(x), len(projections), 2, spec.num_kv_heads, spec.head_dim).permute(2, 1, 0, 3, 4)
    if weights.k_norm is not None:
        k = rms_norm(k, weights.k_norm[layers, None, None], spec.rms_norm_eps)
    return k if rotation is None else rotation.apply(k), v
