"""A T5 read to go on with, and its folder in Hugging Face form written, with weights in float16."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from offramp.files import replace_file
from offramp.models import T5Spec, expected_tensors, open_model, resolve
from offramp.tune.t5_shape import END, PAD, trainable
from offramp.tune.t5_tokenizer import write_tokenizer
from offramp.weights.eight_bits import half
from offramp.weights.safetensors import safetensors_bytes


def read_t5(model: str) -> tuple[T5Spec, dict[str, Tensor]]:
    """Spec and weights, float32, of a T5: a folder, or a name.

    Raises:
        OfframpError: there is no such model, or its files cannot be read, or it cannot be trained here.
    """
    spec, source = open_model(resolve(model))
    spec = trainable(spec)
    return spec, {name: torch.tensor(np.array(source.load(name))).float() for name in expected_tensors(spec)}


def config_of(spec: T5Spec) -> dict[str, Any]:
    """The model's `config.json`, which `offramp.models.t5_spec_from_hf` reads."""
    return {
        "architectures": ["T5ForConditionalGeneration"],
        "model_type": "t5",
        "is_encoder_decoder": True,
        "num_layers": spec.num_encoder_layers,
        "num_decoder_layers": spec.num_layers,
        "d_model": spec.hidden_size,
        "num_heads": spec.num_heads,
        "d_kv": spec.head_dim,
        "d_ff": spec.intermediate_size,
        "vocab_size": spec.vocab_size,
        "relative_attention_num_buckets": spec.num_buckets,
        "relative_attention_max_distance": spec.max_distance,
        "feed_forward_proj": spec.feed_forward,
        "layer_norm_epsilon": spec.rms_norm_eps,
        "tie_word_embeddings": True,
        "scale_decoder_outputs": spec.scale_head,
        "dropout_rate": 0.0,
        "pad_token_id": PAD,
        "eos_token_id": END,
        "decoder_start_token_id": PAD,
        "dtype": "float32",
    }


def write_t5(folder: Path, spec: T5Spec, weights: Mapping[str, Tensor], tokenizer: bytes) -> None:
    """Write a model and its tokenizer.

    Raises:
        WeightsError: a weight that float16 cannot hold: the training has diverged.
    """
    arrays = {name: half(name, tensor.detach().cpu().numpy()) for name, tensor in weights.items()}
    folder.mkdir(parents=True, exist_ok=True)
    replace_file(folder / "model.safetensors", safetensors_bytes(arrays))
    generation = {"decoder_start_token_id": PAD, "eos_token_id": END, "pad_token_id": PAD}
    replace_file(folder / "generation_config.json", json.dumps(generation, indent=1).encode())
    write_tokenizer(folder, tokenizer)
    replace_file(folder / "config.json", json.dumps(config_of(spec), indent=1).encode())
