"""Tiny T5 checkpoints, with a tiny unigram vocabulary."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn

from tests.tokenizer.toys import UNIGRAM, unigram

SIZES: dict[str, Any] = {
    "vocab_size": len(UNIGRAM) + 4,
    "d_model": 16,
    "d_kv": 4,
    "d_ff": 24,
    "num_layers": 2,
    "num_decoder_layers": 3,
    "num_heads": 3,
    "decoder_start_token_id": 0,
}


def save_t5(folder: Path, *, untied: bool = False, **changes: Any) -> Any:
    """A random checkpoint with a tokenizer, saved by Transformers; returns the model."""
    torch.manual_seed(0)
    own: dict[str, Any] = {"tie_word_embeddings": False} if untied else {}
    config = transformers.T5Config(**{**SIZES, **own, **changes})
    model: Any = transformers.T5ForConditionalGeneration(config).eval()
    if untied:
        model.lm_head.weight = nn.Parameter(torch.randn_like(model.lm_head.weight))
    model.save_pretrained(folder)
    unigram().save(str(folder / "tokenizer.json"))
    return model
