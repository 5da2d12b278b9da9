"""A model's weights as the C++ core takes them: packed matrices, and norms and biases as float32."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from offramp.executors.native.cache import load_packed
from offramp.executors.native.layout import PANEL, PackedMatrix, round_up
from offramp.executors.native.pack import Floats, as_floats
from offramp.executors.native.plan import plan_matrices
from offramp.executors.native.weights_t5 import decoder_layer, encoder
from offramp.models import ModelSpec, Spec, T5Spec
from offramp.weights.source import WeightSource

NOTHING = np.zeros(0, dtype=np.float32)


@dataclass(frozen=True, slots=True)
class NativeWeights:
    """All weights of a model; a layer is a mapping with the names of `Layer` in `csrc/model.h`.

    `lm_head` is `embedding` itself where the model ties them; `head_scale` multiplies its logits. `encoder` is a
    mapping with the names of `Encoder` there, but for those of its store; None for a decoder-only model.
    """

    embedding: PackedMatrix
    lm_head: PackedMatrix
    final_norm: Floats
    layers: tuple[Mapping[str, Any], ...]
    head_scale: float = 1.0
    encoder: Mapping[str, Any] | None = None


def load_weights(spec: Spec, source: WeightSource, dtype: str, threads: int) -> NativeWeights:
    """Pack a model's weights on `threads` threads, or read them packed from the cache.

    Raises:
        WeightsError: a tensor cannot be read.
    """
    packed = load_packed(plan_matrices(spec, source, dtype), source, dtype, threads)
    half: Mapping[str, Any] | None = None
    if isinstance(spec, T5Spec):
        layers = [decoder_layer(source, packed, index) for index in range(spec.num_layers)]
        half = encoder(spec, source, packed)
    else:
        layers = [_layer(spec, source, packed, index) for index in range(spec.num_layers)]
    return NativeWeights(
        embedding=packed["embedding"],
        lm_head=packed["embedding" if spec.tie_word_embeddings else "lm_head"],
        final_norm=as_floats(source.load(spec.final_norm)),
        layers=tuple(layers),
        head_scale=spec.head_scale,
        encoder=half,
    )


def _layer(spec: ModelSpec, source: WeightSource, packed: Mapping[str, PackedMatrix], index: int) -> dict[str, Any]:
    def get(name: str, present: bool = True) -> Floats:
        return as_floats(source.load(f"model.layers.{index}.{name}")) if present else NOTHING

    qkv = [get(f"self_attn.{name}_proj.bias", spec.attention_bias) for name in ("q", "k", "v")]
    gate_up = [get(f"mlp.{name}_proj.bias", spec.mlp_bias) for name in ("gate", "up")]
    return {
        **{name: packed[f"{index}.{name}"] for name in ("qkv", "out", "gate_up", "down", "passing")},
        "attention_norm": get("input_layernorm.weight"),
        "mlp_norm": get("post_attention_layernorm.weight"),
        "q_norm": get("self_attn.q_norm.weight", spec.qk_norm),
        "k_norm": get("self_attn.k_norm.weight", spec.qk_norm),
        "qkv_bias": _padded(qkv),
        "passing_bias": _padded(qkv[1:]),
        "out_bias": _padded([get("self_attn.o_proj.bias", spec.attention_output_bias)]),
        "gate_up_bias": _alternating(*gate_up),
        "down_bias": _padded([get("mlp.down_proj.bias", spec.mlp_bias)]),
        "window": spec.window_at(index) or 0,
    }


def _padded(parts: Sequence[Floats]) -> Floats:
    """Biases of columns that each begin on a panel."""
    return np.concatenate([np.pad(part, (0, -len(part) % PANEL)) for part in parts])


def _alternating(first: Floats, second: Floats) -> Floats:
    """Biases of columns whose panels alternate."""
    both = np.zeros((2, round_up(len(first), PANEL)), dtype=np.float32)
    both[0, : len(first)], both[1, : len(second)] = first, second
    return np.ascontiguousarray(both.reshape(2, -1, PANEL).swapaxes(0, 1)).reshape(-1)
