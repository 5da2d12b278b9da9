"""Tiny random Llama-shaped models whose shallow exits agree with the top often, but not always."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from offramp.exits.pack import Base, ExitPack, ExitSpec
from offramp.models.rope import RopeSpec
from offramp.models.spec import ModelSpec
from offramp.models.tensors import Spec

Weights = Mapping[str, np.ndarray]


class DictSource:
    """A `WeightSource` over arrays in memory."""

    def __init__(self, arrays: Weights) -> None:
        self._arrays = arrays

    @property
    def files(self) -> tuple[Path, ...]:
        return ()

    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        return {name: array.shape for name, array in self._arrays.items()}

    def load(self, name: str) -> np.ndarray:
        return self._arrays[name]


def toy_spec(num_layers: int = 6, *, vocab_size: int = 48, max_model_len: int = 64) -> ModelSpec:
    """A Llama with hidden size 16, 4 heads over 2 KV heads and end-of-sequence token 0."""
    return ModelSpec(
        family="llama",
        num_layers=num_layers,
        hidden_size=16,
        intermediate_size=24,
        num_heads=4,
        num_kv_heads=2,
        head_dim=4,
        vocab_size=vocab_size,
        max_model_len=max_model_len,
        rms_norm_eps=1e-6,
        rope=RopeSpec(theta=100.0),
        tie_word_embeddings=False,
        eos_token_ids=(0,),
    )


def toy_weights(spec: ModelSpec, seed: int = 0) -> dict[str, np.ndarray]:
    """Random float32 weights by Hugging Face names. Layers move the hidden state less and less, as trained ones do."""
    rng = np.random.default_rng(seed)

    def matrix(rows: int, columns: int, scale: float = 1.0) -> np.ndarray:
        return np.asarray(rng.standard_normal((rows, columns)) * scale / np.sqrt(columns))

    def norm(spread: float) -> np.ndarray:
        return np.asarray(rng.normal(1, spread, spec.hidden_size))

    hidden, kv = spec.hidden_size, spec.num_kv_heads * spec.head_dim
    weights = {
        "model.embed_tokens.weight": rng.standard_normal((spec.vocab_size, hidden)),
        "model.norm.weight": norm(0.1),
        "lm_head.weight": 0.5 * rng.standard_normal((spec.vocab_size, hidden)),
    }
    for layer in range(spec.num_layers):
        step = 1.2 / (1 + 0.9 * layer)
        weights |= {
            f"model.layers.{layer}.{name}.weight": array
            for name, array in {
                "input_layernorm": norm(0.2),
                "self_attn.q_proj": matrix(spec.num_heads * spec.head_dim, hidden),
                "self_attn.k_proj": matrix(kv, hidden),
                "self_attn.v_proj": matrix(kv, hidden),
                "self_attn.o_proj": matrix(hidden, spec.num_heads * spec.head_dim, step),
                "post_attention_layernorm": norm(0.2),
                "mlp.gate_proj": matrix(spec.intermediate_size, hidden),
                "mlp.up_proj": matrix(spec.intermediate_size, hidden),
                "mlp.down_proj": matrix(hidden, spec.intermediate_size, step),
            }.items()
        }
    return {name: array.astype(np.float32) for name, array in weights.items()}


def toy_pack(spec: Spec, seed: int = 0) -> ExitPack:
    """Three exits, at a third, half and two thirds of the depth, all with classifiers.

    The first is plain, the second has a reduced vocabulary with "other" and its own norm, the third its own head and a
    temperature. The second and the third read the past.
    """
    rng = np.random.default_rng([seed, 1])
    first, second, third = spec.num_layers // 3, spec.num_layers // 2, 2 * spec.num_layers // 3
    size, hidden = spec.vocab_size, spec.hidden_size
    tensors = {
        f"exits.{second}.norm.weight": 1 + 0.1 * rng.standard_normal(hidden),
        f"exits.{second}.other.weight": 0.3 * rng.standard_normal((1, hidden)),
        f"exits.{second}.other.bias": np.array([1.0]),
        f"exits.{third}.head.weight": 0.5 * rng.standard_normal((size, hidden)),
    }
    for layer in (second, third):
        tensors[f"exits.{layer}.past.hidden_norm.weight"] = 1 + 0.1 * rng.standard_normal(hidden)
        tensors[f"exits.{layer}.past.state_norm.weight"] = 1 + 0.1 * rng.standard_normal(hidden)
        mixed = np.concatenate((2 * np.eye(hidden), -np.eye(hidden)), axis=1)
        tensors[f"exits.{layer}.past.weight"] = mixed + 0.1 * rng.standard_normal(mixed.shape)
    for layer in (first, second, third):
        tensors[f"exits.{layer}.classifier.weight"] = 0.5 * rng.standard_normal((1, hidden))
        tensors[f"exits.{layer}.classifier.bias"] = np.array([0.2])
    return ExitPack(
        identity=f"toy:{seed}",
        base=Base(spec.num_layers, hidden, size),
        exits=(
            ExitSpec(first, classifier="linear"),
            ExitSpec(second, norm="own", vocabulary="low", other=True, classifier="linear", past="deep"),
            ExitSpec(third, head="own", temperature=1.5, classifier="linear", past="deep"),
        ),
        vocabularies={"low": tuple(range(2 * size // 3))},
        tensors=DictSource({name: array.astype(np.float32) for name, array in tensors.items()}),
    )
