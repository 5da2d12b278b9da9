"""A toy T5, toy pairs, and the same model as Transformers has it."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

import torch
import transformers
from torch import Tensor

from offramp.tune.t5_shape import T5Shape, new_weights

SHAPE = T5Shape(2, 3, 16, 2, 8, 24, 320, 8, 20)

SHAPE_FLAG = "layers=1,decoder_layers=3,width=32,heads=2,head_dim=16,inner=48,vocabulary=320"


def as_transformers(shape: T5Shape, weights: dict[str, Tensor]) -> Any:
    """The model with these weights in Transformers, float32."""
    apart = ("architectures", "model_type", "dtype")
    config = transformers.T5Config(**{k: v for k, v in shape.config().items() if k not in apart})
    model = transformers.T5ForConditionalGeneration(config).eval()
    found = model.load_state_dict(weights, strict=False)
    assert not found.unexpected_keys
    assert set(found.missing_keys) <= {
        *("encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight"),
    }
    return model


def toy_weights(shape: T5Shape = SHAPE, seed: int = 0) -> dict[str, Tensor]:
    """Random weights, norms included."""
    torch.manual_seed(seed)
    return {
        name: tensor + 0.3 * torch.randn_like(tensor) if "norm" in name else tensor
        for name, tensor in new_weights(shape, seed).items()
    }


def ragged(shape: T5Shape = SHAPE) -> tuple[Tensor, Tensor, Tensor]:
    """Sources [3, 30] with their lengths, and what the decoder reads [3, 26]."""
    random = torch.Generator().manual_seed(1)
    source = torch.randint(2, shape.vocabulary, (3, 30), generator=random)
    lengths = torch.tensor([30, 17, 5])
    for row, length in enumerate(lengths):
        source[row, length:] = 0
    given = torch.randint(2, shape.vocabulary, (3, 26), generator=random)
    given[:, 0] = 0
    return source, lengths, given


def write_texts(path: Path, count: int = 400) -> Path:
    """Words in small letters, and the same with capitals and a full stop."""
    random = Random(0)
    words = ["whale", "ship", "sea", "captain", "union", "state", "law", "people", "war", "peace", "module", "list"]
    lines = []
    for _ in range(count):
        text = " ".join(random.choices(words, k=random.randint(2, 6)))
        lines.append(json.dumps({"source": text, "target": f"{text.title()}."}))
    path.write_text("\n".join(lines), encoding="utf-8")
    return path
