"""Tiny random T5 models whose shallow exits agree with the top often, but not always. The packs are those of `toy`."""

from __future__ import annotations

import numpy as np

from offramp.models import T5Spec

MAX_SOURCE_LEN = 12
"""The longest source that tests give them."""


def toy_t5_spec(num_layers: int = 6, *, vocab_size: int = 48, gated: bool = True, max_model_len: int = 64) -> T5Spec:
    """Hidden size 16, 4 heads, two encoder layers, end-of-sequence token 0, decoder start token 1."""
    return T5Spec(
        num_layers=num_layers,
        num_encoder_layers=2,
        hidden_size=16,
        intermediate_size=24,
        num_heads=4,
        head_dim=6,
        vocab_size=vocab_size,
        rms_norm_eps=1e-6,
        feed_forward="gated-gelu" if gated else "relu",
        num_buckets=8,
        max_distance=20,
        tie_word_embeddings=not gated,
        scale_head=not gated,
        decoder_start_token_id=1,
        eos_token_ids=(0,),
        max_model_len=max_model_len,
    )


def toy_t5_weights(spec: T5Spec, seed: int = 0) -> dict[str, np.ndarray]:
    """Random float32 weights by Hugging Face names. Layers move the hidden state less and less, as trained ones do."""
    rng = np.random.default_rng([seed, 5])
    hidden, inner = spec.hidden_size, spec.num_heads * spec.head_dim

    def matrix(rows: int, columns: int, scale: float = 1.0) -> np.ndarray:
        return np.asarray(rng.standard_normal((rows, columns)) * scale / np.sqrt(columns))

    def norm() -> np.ndarray:
        return np.asarray(rng.normal(1, 0.2, hidden))

    weights = {
        "shared.weight": rng.standard_normal((spec.vocab_size, hidden)) * (2.0 if spec.tie_word_embeddings else 1.0),
        "encoder.final_layer_norm.weight": norm(),
        "decoder.final_layer_norm.weight": norm(),
    }
    if not spec.tie_word_embeddings:
        weights["lm_head.weight"] = 0.5 * rng.standard_normal((spec.vocab_size, hidden))
    for half, depth in (("encoder", spec.num_encoder_layers), ("decoder", spec.num_layers)):
        for layer in range(depth):
            step = 1.2 / (1 + 0.9 * layer)
            names = ("SelfAttention", "EncDecAttention") if half == "decoder" else ("SelfAttention",)
            for i, name in enumerate(names):
                block = f"{half}.block.{layer}.layer.{i}"
                weights |= {
                    f"{block}.layer_norm.weight": norm(),
                    **{f"{block}.{name}.{part}.weight": matrix(inner, hidden) for part in "qkv"},
                    f"{block}.{name}.o.weight": matrix(hidden, inner, step),
                }
            block = f"{half}.block.{layer}.layer.{len(names)}"
            weights |= {
                f"{block}.layer_norm.weight": norm(),
                **{
                    f"{block}.DenseReluDense.{part}.weight": matrix(spec.intermediate_size, hidden)
                    for part in (("wi_0", "wi_1") if spec.is_gated else ("wi",))
                },
                f"{block}.DenseReluDense.wo.weight": matrix(hidden, spec.intermediate_size, step),
            }
        bias = rng.standard_normal((spec.num_buckets, spec.num_heads))
        weights[f"{half}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"] = bias
    return {name: array.astype(np.float32) for name, array in weights.items()}
