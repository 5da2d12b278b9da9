"""A T5's weights as the C++ core takes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from offramp.executors.native.layout import PackedMatrix
from offramp.executors.native.pack import Floats, as_floats
from offramp.models import T5Spec, relative_buckets
from offramp.weights.source import WeightSource

SELF, CROSS = ("qkv", "out", "gate_up", "down"), ("cross_q", "cross_kv", "cross_out", "passing")


def decoder_layer(source: WeightSource, packed: Mapping[str, PackedMatrix], index: int) -> dict[str, Any]:
    """A layer of the decoder, by the names of `Layer` in `csrc/model.h`."""
    prefix = f"decoder.block.{index}.layer"
    return {
        **{name: packed[f"{index}.{name}"] for name in (*SELF, *CROSS)},
        "attention_norm": as_floats(source.load(f"{prefix}.0.layer_norm.weight")),
        "cross_norm": as_floats(source.load(f"{prefix}.1.layer_norm.weight")),
        "mlp_norm": as_floats(source.load(f"{prefix}.2.layer_norm.weight")),
    }


def encoder(spec: T5Spec, source: WeightSource, packed: Mapping[str, PackedMatrix]) -> dict[str, Any]:
    """The encoder, by the names of `Encoder` in `csrc/model.h`, but for what concerns its store."""
    return {
        "layers": [_encoder_layer(source, packed, index) for index in range(spec.num_encoder_layers)],
        "bias": relative_bias(spec, source, "encoder"),
        "norm": as_floats(source.load("encoder.final_layer_norm.weight")),
    }


def relative_bias(spec: T5Spec, source: WeightSource, half: str) -> Floats:
    """What attention adds at offsets -max_distance..max_distance, head by head: [heads * (2 max_distance + 1)]."""
    table = as_floats(source.load(f"{half}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"))
    buckets = relative_buckets(spec.num_buckets, spec.max_distance, bidirectional=half == "encoder")
    return np.ascontiguousarray(table[buckets].T).reshape(-1)


def _encoder_layer(source: WeightSource, packed: Mapping[str, PackedMatrix], index: int) -> dict[str, Any]:
    prefix = f"encoder.block.{index}.layer"
    return {
        **{name: packed[f"encoder.{index}.{name}"] for name in SELF},
        "attention_norm": as_floats(source.load(f"{prefix}.0.layer_norm.weight")),
        "mlp_norm": as_floats(source.load(f"{prefix}.1.layer_norm.weight")),
    }
