"""What the C++ core must know of a model beside its weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from offramp.executors.native.weights import NativeWeights
from offramp.executors.native.weights_t5 import relative_bias
from offramp.models import ModelSpec, Spec, T5Spec, inverse_frequencies
from offramp.types.executor import ModelShape
from offramp.weights.source import WeightSource

ACTIVATIONS = {"relu": "relu", "gated-gelu": "gelu"}
"""Of a T5's feed-forward layers, by the names of the core."""


def core_config(spec: Spec, source: WeightSource, shape: ModelShape, kv_dtype: str) -> dict[str, Any]:
    """The model, by the names of `Config` in `csrc/model.h`.

    Raises:
        WeightsError: a tensor cannot be read.
    """
    return {
        "hidden": spec.hidden_size,
        "intermediate": spec.intermediate_size,
        "heads": spec.num_heads,
        "kv_heads": spec.num_kv_heads,
        "head_dim": spec.head_dim,
        "vocab": spec.vocab_size,
        "max_positions": shape.max_model_len,
        "eps": spec.rms_norm_eps,
        "layers_at": list(shape.layers_at),
        "block_size": shape.block_size,
        "num_blocks": shape.num_blocks,
        "half_kv": kv_dtype == "float16",
        **(_relative(spec, source) if isinstance(spec, T5Spec) else _rotary(spec)),
    }


def core_encoder(weights: NativeWeights, shape: ModelShape) -> Mapping[str, Any] | None:
    """The encoder, by the names of `Encoder` there; None for a decoder-only model."""
    if weights.encoder is None or shape.encoder is None:
        return None
    return {**weights.encoder, "max_length": shape.encoder.max_source_len, "num_blocks": shape.encoder.num_blocks}


def store_bytes(spec: Spec, shape: ModelShape, kv_dtype: str) -> int:
    """Bytes of the paged store: K and V of every layer, hidden states at every boundary, and deep states; and of the
    store of sources, which every layer reads."""
    kv = 2 * spec.num_layers * spec.num_kv_heads * spec.head_dim * (2 if kv_dtype == "float16" else 4)
    hidden = (shape.num_segments + shape.reads_past) * spec.hidden_size * 4
    source_blocks = 0 if shape.encoder is None else shape.encoder.num_blocks
    return shape.block_size * (shape.num_blocks * (kv + hidden) + source_blocks * kv)


def _rotary(spec: ModelSpec) -> dict[str, Any]:
    frequencies, factor = inverse_frequencies(spec.rope, spec.head_dim)
    return {"frequencies": frequencies, "rope_factor": factor}


def _relative(spec: T5Spec, source: WeightSource) -> dict[str, Any]:
    return {
        "frequencies": [],
        "bias": relative_bias(spec, source, "decoder"),
        "scaled": False,
        "activation": ACTIVATIONS[spec.feed_forward],
    }
