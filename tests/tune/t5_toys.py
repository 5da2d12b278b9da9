"""A toy T5, toy pairs, and the same model as Transformers has it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import torch
import transformers
from torch import Tensor

from offramp.models import T5Spec
from offramp.tune.t5_files import config_of
from offramp.tune.t5_shape import new_weights, parse_shape

SPEC = replace(
    parse_shape("layers=2,decoder_layers=3,width=16,heads=2,head_dim=8,inner=24,vocabulary=320"),
    num_buckets=8,
    max_distance=20,
)

SHAPE_FLAG = "layers=1,decoder_layers=3,width=32,heads=2,head_dim=16,inner=48,vocabulary=320"


def as_transformers(spec: T5Spec, weights: dict[str, Tensor]) -> Any:
    """The model with these weights in Transformers, float32."""
    apart = ("architectures", "model_type", "dtype")
    config = transformers.T5Config(**{k: v for k, v in config_of(spec).items() if k not in apart})
    model = transformers.T5ForConditionalGeneration(config).eval()
    found = model.load_state_dict(weights, strict=False)
    assert not found.unexpected_keys
    assert set(found.missing_keys) <= {
        *("encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight"),
    }
    return model


def toy_weights(spec: T5Spec = SPEC, seed: int = 0) -> dict[str, Tensor]:
    """Random weights, norms included."""
    torch.manual_seed(seed)
    return {
        name: tensor + 0.3 * torch.randn_like(tensor) if "norm" in name else tensor
        for name, tensor in new_weights(spec, seed).items()
    }


def ragged(spec: T5Spec = SPEC) -> tuple[Tensor, Tensor, Tensor]:
    """Sources [3, 30] with their lengths, and what the decoder reads [3, 26]."""
    random = torch.Generator().manual_seed(1)
    source = torch.randint(2, spec.vocab_size, (3, 30), generator=random)
    lengths = torch.tensor([30, 17, 5])
    for row, length in enumerate(lengths):
        source[row, length:] = 0
    given = torch.randint(2, spec.vocab_size, (3, 26), generator=random)
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
