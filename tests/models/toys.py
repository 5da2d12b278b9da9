"""Tiny checkpoints in both formats, with a tiny byte-level vocabulary."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from offramp.tokenizer.pieces import byte_alphabet
from tests.weights.toys import permuted, write_gguf

VOCAB = ["<|end|>", *byte_alphabet(), "ab"]
SIZES: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": len(VOCAB),
    "max_position_embeddings": 32,
    "bos_token_id": 0,
    "eos_token_id": 0,
}


def config(family: str = "llama", **changes: Any) -> Any:
    """A tiny configuration of a Transformers family."""
    return transformers.AutoConfig.for_model(family, **{**SIZES, **changes})


def save_model(folder: Path, family: str = "llama", **changes: Any) -> Any:
    """A random checkpoint with a tokenizer, saved by Transformers; returns the model."""
    torch.manual_seed(0)
    model = cast(Any, transformers.AutoModelForCausalLM).from_config(config(family, **changes))
    model.save_pretrained(folder)
    backend = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(VOCAB)}, merges=[("a", "b")]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.save(str(folder / "tokenizer.json"))
    return model


GGUF_NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def save_gguf(path: Path, model: Any, family: str = "llama", extra: dict[str, np.ndarray] | None = None) -> Path:
    """The model as llama.cpp's converter would store it, in float32."""
    tensors: dict[str, np.ndarray] = {}
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight" and model.config.tie_word_embeddings:
            continue
        stem, part = name.removeprefix("model.layers.").rsplit(".", 1)
        layer, _, inner = stem.partition(".")
        stored = f"blk.{layer}.{GGUF_NAMES[inner]}" if layer.isdigit() else GGUF_NAMES[stem]
        array = tensor.numpy()
        if family == "llama" and inner in ("self_attn.q_proj", "self_attn.k_proj"):
            array = permuted(array, 4 if "q_proj" in inner else 2)
        tensors[f"{stored}.{part}"] = array
    return write_gguf(
        path,
        tensors | (extra or {}),
        arch=family,
        numbers=gguf_numbers(family),
        lists={
            "tokenizer.ggml.tokens": VOCAB,
            "tokenizer.ggml.merges": ["a b"],
            "tokenizer.ggml.token_type": [3] + [1] * (len(VOCAB) - 1),
        },
        texts={"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "smollm"},
    )


def gguf_numbers(family: str = "llama") -> dict[str, int | float]:
    """The numeric metadata that goes with `SIZES`."""
    own: dict[str, int | float] = {
        "block_count": 2,
        "context_length": 32,
        "embedding_length": 16,
        "feed_forward_length": 24,
        "attention.head_count": 4,
        "attention.head_count_kv": 2,
        "attention.key_length": 4,
        "attention.value_length": 4,
        "rope.freq_base": 10000.0,
        "attention.layer_norm_rms_epsilon": 1e-6,
    }
    return {f"{family}.{key}": number for key, number in own.items()} | {
        "tokenizer.ggml.bos_token_id": 0,
        "tokenizer.ggml.eos_token_id": 0,
    }
