"""The weights of a model of the Llama line as torch tensors, fused where the computation reads them together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from offramp.models.spec import ModelSpec
from offramp.weights.source import WeightSource


@dataclass(frozen=True, slots=True)
class LayerWeights:
    """One decoder layer. q = num_heads * head_dim, kv = num_kv_heads * head_dim, d = hidden, m = intermediate size."""

    attention_norm: Tensor  # [d]
    qkv: Tensor  # [q + 2 kv, d]
    qkv_bias: Tensor | None  # [q + 2 kv]
    q_norm: Tensor | None  # [head_dim]
    k_norm: Tensor | None  # [head_dim]
    out: Tensor  # [d, q]
    out_bias: Tensor | None  # [d]
    mlp_norm: Tensor  # [d]
    gate_up: Tensor  # [2 m, d]
    gate_up_bias: Tensor | None  # [2 m]
    down: Tensor  # [d, m]
    down_bias: Tensor | None  # [d]


@dataclass(frozen=True, slots=True)
class PassWeights:
    """K and V projections of all L layers with their norms folded in, so that a pass is one GEMM.

    A passing hidden state is the same for every layer, and RMSNorm(h) = norm_weight * h / rms(h): scaling the columns
    of each projection by its layer's norm weight leaves the same input, h / rms(h), for all of them.
    """

    kv: Tensor  # [L, 2, kv, d]
    bias: Tensor | None  # [L, 2, kv]
    k_norm: Tensor | None  # [L, head_dim]


@dataclass(frozen=True, slots=True)
class ModelWeights:
    """All weights of a model; `lm_head` is `embedding` itself where the model ties them."""

    embedding: Tensor  # [vocab, d]
    layers: tuple[LayerWeights, ...]
    passing: PassWeights
    final_norm: Tensor  # [d]
    lm_head: Tensor  # [vocab, d]


def to_tensor(array: np.ndarray, device: torch.device, dtype: torch.dtype) -> Tensor:
    """A copy of `array`, which may be a read-only map of a file, on `device`."""
    return torch.tensor(array).to(device=device, dtype=dtype)


def load_weights(spec: ModelSpec, source: WeightSource, device: torch.device, dtype: torch.dtype) -> ModelWeights:
    """Load and fuse a model's weights.

    Raises:
        WeightsError: the source cannot read a tensor.
    """

    def get(name: str) -> Tensor:
        return to_tensor(source.load(name), device, dtype)

    embedding = get("model.embed_tokens.weight")
    layers = tuple(_load_layer(spec, source, index, device, dtype) for index in range(spec.num_layers))
    return ModelWeights(
        embedding=embedding,
        layers=layers,
        passing=_passing(spec, layers),
        final_norm=get(spec.final_norm),
        lm_head=embedding if spec.tie_word_embeddings else get(spec.lm_head),
    )


def _load_layer(
    spec: ModelSpec, source: WeightSource, index: int, device: torch.device, dtype: torch.dtype
) -> LayerWeights:
    def get(name: str) -> Tensor:
        return to_tensor(source.load(f"model.layers.{index}.{name}"), device, dtype)

    def fused(prefix: str, names: tuple[str, ...], part: str) -> Tensor:
        return torch.cat([get(f"{prefix}.{name}_proj.{part}") for name in names])

    qkv, gate_up = ("q", "k", "v"), ("gate", "up")
    return LayerWeights(
        attention_norm=get("input_layernorm.weight"),
        qkv=fused("self_attn", qkv, "weight"),
        qkv_bias=fused("self_attn", qkv, "bias") if spec.attention_bias else None,
        q_norm=get("self_attn.q_norm.weight") if spec.qk_norm else None,
        k_norm=get("self_attn.k_norm.weight") if spec.qk_norm else None,
        out=get("self_attn.o_proj.weight"),
        out_bias=get("self_attn.o_proj.bias") if spec.attention_output_bias else None,
        mlp_norm=get("post_attention_layernorm.weight"),
        gate_up=fused("mlp", gate_up, "weight"),
        gate_up_bias=fused("mlp", gate_up, "bias") if spec.mlp_bias else None,
        down=get("mlp.down_proj.weight"),
        down_bias=get("mlp.down_proj.bias") if spec.mlp_bias else None,
    )


def _passing(spec: ModelSpec, layers: tuple[LayerWeights, ...]) -> PassWeights:
    kv = spec.num_kv_heads * spec.head_dim
    biases = [layer.qkv_bias[-2 * kv :] for layer in layers if layer.qkv_bias is not None]
    k_norms = [layer.k_norm for layer in layers if layer.k_norm is not None]
    return PassWeights(
        kv=fold([(layer.qkv[-2 * kv :], layer.attention_norm) for layer in layers]),
        bias=torch.stack(biases).view(len(layers), 2, kv) if biases else None,
        k_norm=torch.stack(k_norms) if k_norms else None,
    )


def fold(layers: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """Projections to K and V, [2 kv, d] each, with the norm weights [d] before them folded in: [L, 2, kv, d].

    In float32 at least, so that a bfloat16 product is rounded once.
    """
    wide = torch.promote_types(layers[0][0].dtype, torch.float32)
    folded = [(projection.to(wide) * norm.to(wide)).to(projection.dtype) for projection, norm in layers]
    return torch.stack(folded).view(len(layers), 2, -1, folded[0].shape[1])
