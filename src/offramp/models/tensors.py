"""Which tensors a model is made of, and whether a source holds exactly those."""

from __future__ import annotations

import re
from collections.abc import Collection

import numpy as np

from offramp.errors import WeightsError
from offramp.models.spec import ModelSpec
from offramp.models.t5 import T5Spec
from offramp.models.t5_tensors import COPIES, EMBEDDING, HARMLESS_T5, expected_t5_tensors
from offramp.weights.source import WeightSource

Shape = tuple[int, ...]
Spec = ModelSpec | T5Spec

LISTED = 5
HARMLESS = re.compile(r"model\.(layers\.\d+\.self_attn\.)?rotary_emb\.inv_freq")
"""Buffers that old checkpoints carry and that follow from the configuration."""


def expected_tensors(spec: Spec) -> dict[str, Shape]:
    """Hugging Face name -> shape of every tensor the model reads, in the order it reads them."""
    if isinstance(spec, T5Spec):
        return expected_t5_tensors(spec)
    tensors: dict[str, Shape] = {"model.embed_tokens.weight": (spec.vocab_size, spec.hidden_size)}
    for layer in range(spec.num_layers):
        tensors.update({f"model.layers.{layer}.{name}": shape for name, shape in _layer_tensors(spec).items()})
    tensors["model.norm.weight"] = (spec.hidden_size,)
    if not spec.tie_word_embeddings:
        tensors["lm_head.weight"] = (spec.vocab_size, spec.hidden_size)
    return tensors


def check_tensors(spec: Spec, source: WeightSource) -> None:
    """Make sure that `source` holds the model's tensors, of the right shapes, and no others.

    What follows from the rest or is read by no code is let through: rotary buffers, a T5's copies of its embedding,
    and, where embeddings are tied, a copy of them as `lm_head.weight`.

    Raises:
        WeightsError: missing, misshapen or unknown tensors, by name, or a copy that is none.
    """
    expected, found = expected_tensors(spec), source.shapes()
    where = ", ".join(f"`{file}`" for file in source.files[:1]) or "the source"
    missing = [name for name in expected if name not in found]
    if missing:
        raise WeightsError(f"{where} lacks tensors of the model: {_listed(missing)}")
    for name, shape in expected.items():
        if tuple(found[name]) != shape:
            raise WeightsError(
                f"tensor `{name}` in {where} has shape {list(found[name])}; the model needs {list(shape)}"
            )
    is_t5 = isinstance(spec, T5Spec)
    allowed = {*expected, "lm_head.weight", *(COPIES if is_t5 else ())}
    harmless = HARMLESS_T5 if is_t5 else HARMLESS
    unknown = [name for name in found if name not in allowed and not harmless.fullmatch(name)]
    if unknown:
        raise WeightsError(f"{where} holds tensors that the model has no place for: {_listed(unknown)}")
    for name in COPIES if is_t5 else ():
        if name in found and not np.array_equal(source.load(name), source.load(EMBEDDING)):
            raise WeightsError(f"tensor `{name}` in {where} is not the same as `{EMBEDDING}`, and T5 shares them")


def _layer_tensors(spec: ModelSpec) -> dict[str, Shape]:
    """Name within a layer -> shape."""
    hidden, ffn = spec.hidden_size, spec.intermediate_size
    queries, keys = spec.num_heads * spec.head_dim, spec.num_kv_heads * spec.head_dim
    linears = {
        "self_attn.q_proj": ((queries, hidden), spec.attention_bias),
        "self_attn.k_proj": ((keys, hidden), spec.attention_bias),
        "self_attn.v_proj": ((keys, hidden), spec.attention_bias),
        "self_attn.o_proj": ((hidden, queries), spec.attention_output_bias),
        "mlp.gate_proj": ((ffn, hidden), spec.mlp_bias),
        "mlp.up_proj": ((ffn, hidden), spec.mlp_bias),
        "mlp.down_proj": ((hidden, ffn), spec.mlp_bias),
    }
    tensors: dict[str, Shape] = {"input_layernorm.weight": (hidden,), "post_attention_layernorm.weight": (hidden,)}
    if spec.qk_norm:
        tensors |= {"self_attn.q_norm.weight": (spec.head_dim,), "self_attn.k_norm.weight": (spec.head_dim,)}
    for name, (shape, has_bias) in linears.items():
        tensors[f"{name}.weight"] = shape
        if has_bias:
            tensors[f"{name}.bias"] = shape[:1]
    return tensors


def _listed(names: Collection[str]) -> str:
    shown = ", ".join(f"`{name}`" for name in list(names)[:LISTED])
    return f"{shown} and {len(names) - LISTED} more" if len(names) > LISTED else shown
