"""The weights of a T5 as torch tensors, fused where the computation reads them together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from offramp.executors.torch.weights import PassWeights, fold, to_tensor
from offramp.models import T5Spec, relative_buckets
from offramp.weights.source import WeightSource

Get = Callable[[str], Tensor]


@dataclass(frozen=True, slots=True)
class AttentionWeights:
    """An attention sublayer; d = hidden_size, q = num_heads * head_dim."""

    norm: Tensor  # [d]
    inputs: Tensor  # [3 q, d]: q, k and v; cross-attention, whose k and v are with `T5Weights.sources`: [q, d]
    out: Tensor  # [d, q]


@dataclass(frozen=True, slots=True)
class FeedForwardWeights:
    """A feed-forward sublayer; m = intermediate_size."""

    norm: Tensor  # [d]
    up: Tensor  # [m, d]; where it is gated [2 m, d], the activated half first
    down: Tensor  # [d, m]


@dataclass(frozen=True, slots=True)
class T5Layer:
    """A layer of the encoder, whose `cross` is None, or of the decoder."""

    attention: AttentionWeights
    cross: AttentionWeights | None
    feed_forward: FeedForwardWeights


@dataclass(frozen=True, slots=True)
class Stack:
    """One half of the model."""

    layers: tuple[T5Layer, ...]
    bias: Tensor  # [heads, 2 max_distance + 1]: what attention adds at offsets -max_distance..max_distance
    final_norm: Tensor  # [d]


@dataclass(frozen=True, slots=True)
class T5Weights:
    """All weights of a model; `lm_head` is `embedding` itself where the model ties them."""

    embedding: Tensor  # [vocab, d]
    encoder: Stack
    sources: Tensor  # [L, 2, q, d]: K and V of the cross-attention of all L decoder layers
    decoder: Stack
    passing: PassWeights
    lm_head: Tensor  # [vocab, d]


def load_t5_weights(spec: T5Spec, source: WeightSource, device: torch.device, dtype: torch.dtype) -> T5Weights:
    """Load and fuse a model's weights.

    Raises:
        WeightsError: the source cannot read a tensor.
    """

    def get(name: str) -> Tensor:
        return to_tensor(source.load(name), device, dtype)

    embedding = get("shared.weight")
    encoder, decoder = _stack(spec, get, "encoder"), _stack(spec, get, "decoder")
    cross = [f"decoder.block.{layer}.layer.1.EncDecAttention" for layer in range(spec.num_layers)]
    projected = [(layer.attention.inputs.tensor_split(3)[1:], layer.attention.norm) for layer in decoder.layers]
    return T5Weights(
        embedding=embedding,
        encoder=encoder,
        sources=torch.stack([torch.stack([get(f"{name}.{part}.weight") for part in "kv"]) for name in cross]),
        decoder=decoder,
        passing=PassWeights(fold([(torch.cat(kv), norm) for kv, norm in projected]), bias=None, k_norm=None),
        lm_head=embedding if spec.tie_word_embeddings else get(spec.lm_head),
    )


def _stack(spec: T5Spec, get: Get, half: str) -> Stack:
    depth = spec.num_layers if half == "decoder" else spec.num_encoder_layers
    table = get(f"{half}.block.0.layer.0.SelfAttention.relative_attention_bias.weight")
    buckets = relative_buckets(spec.num_buckets, spec.max_distance, bidirectional=half == "encoder")
    return Stack(
        layers=tuple(_layer(spec, get, half, layer) for layer in range(depth)),
        bias=table[torch.from_numpy(buckets).to(table.device)].T.contiguous(),
        final_norm=get(f"{half}.final_layer_norm.weight"),
    )


def _layer(spec: T5Spec, get: Get, half: str, layer: int) -> T5Layer:
    prefix = f"{half}.block.{layer}.layer."

    def attention(name: str, inputs: str) -> AttentionWeights:
        return AttentionWeights(
            norm=get(f"{prefix}{name[0]}.layer_norm.weight"),
            inputs=torch.cat([get(f"{prefix}{name}.{part}.weight") for part in inputs]),
            out=get(f"{prefix}{name}.o.weight"),
        )

    last = 2 if half == "decoder" else 1
    dense = f"{prefix}{last}.DenseReluDense"
    return T5Layer(
        attention=attention("0.SelfAttention", "qkv"),
        cross=attention("1.EncDecAttention", "q") if half == "decoder" else None,
        feed_forward=FeedForwardWeights(
            norm=get(f"{prefix}{last}.layer_norm.weight"),
            up=torch.cat([get(f"{dense}.{name}.weight") for name in (("wi_0", "wi_1") if spec.is_gated else ("wi",))]),
            down=get(f"{dense}.wo.weight"),
        ),
    )
