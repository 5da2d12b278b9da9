"""Which tensors a T5 is made of; their names are those of Transformers' T5ForConditionalGeneration."""

from __future__ import annotations

import re

from offramp.models.t5 import T5Spec

Shape = tuple[int, ...]

EMBEDDING = "shared.weight"
COPIES = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
"""Files of some versions hold the embedding once more for each half."""

HARMLESS_T5 = re.compile(r"decoder\.block\.0\.layer\.1\.EncDecAttention\.relative_attention_bias\.weight")
"""A bias of cross-attention that T5 1.0 files carry and no code reads."""


def expected_t5_tensors(spec: T5Spec) -> dict[str, Shape]:
    """Hugging Face name -> shape of every tensor the model reads, in the order it reads them."""
    hidden = spec.hidden_size
    tensors: dict[str, Shape] = {EMBEDDING: (spec.vocab_size, hidden)}
    for half, depth in (("encoder", spec.num_encoder_layers), ("decoder", spec.num_layers)):
        for layer in range(depth):
            tensors |= {f"{half}.block.{layer}.layer.{n}": s for n, s in _layer_tensors(spec, half, layer).items()}
        tensors[f"{half}.final_layer_norm.weight"] = (hidden,)
    if not spec.tie_word_embeddings:
        tensors[spec.lm_head] = (spec.vocab_size, hidden)
    return tensors


def _layer_tensors(spec: T5Spec, half: str, layer: int) -> dict[str, Shape]:
    """Name within a layer -> shape."""
    hidden, ffn, inner = spec.hidden_size, spec.intermediate_size, spec.num_heads * spec.head_dim
    sublayers = {
        "SelfAttention": {"q": (inner, hidden), "k": (inner, hidden), "v": (inner, hidden), "o": (hidden, inner)}
    }
    if half == "decoder":
        sublayers["EncDecAttention"] = sublayers["SelfAttention"]
    first = ("wi_0", "wi_1") if spec.is_gated else ("wi",)
    sublayers["DenseReluDense"] = {**dict.fromkeys(first, (ffn, hidden)), "wo": (hidden, ffn)}
    tensors: dict[str, Shape] = {}
    for i, (name, linears) in enumerate(sublayers.items()):
        tensors |= {f"{i}.{name}.{linear}.weight": shape for linear, shape in linears.items()}
        if i == 0 and layer == 0:
            tensors[f"{i}.{name}.relative_attention_bias.weight"] = (spec.num_buckets, spec.num_heads)
        tensors[f"{i}.layer_norm.weight"] = (hidden,)
    return tensors
