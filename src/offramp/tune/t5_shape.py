"""Which T5 can be trained, and what a new one looks like: sizes of its own, and its first weights."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from offramp.errors import InvalidParameter, Unsupported, did_you_mean
from offramp.models import Spec, T5Spec, expected_tensors
from offramp.types.checks import check_integer

PAD, END = 0, 1
"""Token ids: what pads a batch and begins every target, and what ends sources and targets."""

NEW = T5Spec(
    num_layers=16,
    num_encoder_layers=4,
    hidden_size=256,
    intermediate_size=512,
    num_heads=4,
    head_dim=64,
    vocab_size=4096,
    rms_norm_eps=1e-6,
    feed_forward="gated-gelu",
    num_buckets=32,
    max_distance=128,
    tie_word_embeddings=True,
    scale_head=True,
    decoder_start_token_id=PAD,
    eos_token_ids=(END,),
)
"""A new T5, where nothing else is said."""

SIZES = {
    "layers": ("num_encoder_layers", 1),
    "decoder_layers": ("num_layers", 2),
    "width": ("hidden_size", 1),
    "heads": ("num_heads", 1),
    "head_dim": ("head_dim", 1),
    "inner": ("intermediate_size", 1),
    "vocabulary": ("vocab_size", 300),
}
"""Name in a shape -> name in a `T5Spec`, and the least there can be."""


def parse_shape(text: str) -> T5Spec:
    """A new T5 from `layers=4,decoder_layers=16,width=256`; what is left out is as in `NEW`.

    Raises:
        InvalidParameter: it says something else.
    """
    values: dict[str, int] = {}
    for part in text.split(","):
        name, _, value = part.partition("=")
        if name not in SIZES:
            raise InvalidParameter(f"a shape has no `{name}`", param="shape", hint=did_you_mean(name, list(SIZES)))
        if not value.isdecimal():
            raise InvalidParameter(
                f"`{name}` in a shape must be a whole number, not {value!r}",
                param="shape",
                hint="such as `layers=4,decoder_layers=16,width=256`",
            )
        field, least = SIZES[name]
        check_integer(name, int(value), least)
        values[field] = int(value)
    return replace(NEW, **values)  # type: ignore[arg-type]  # whole numbers all


def trainable(spec: Spec) -> T5Spec:
    """The same, if it can be trained here.

    Raises:
        Unsupported: it cannot.
    """
    if not isinstance(spec, T5Spec):
        raise Unsupported("the recipe `calm` trains a T5, and this model is decoder-only")
    if spec.num_layers < 2:
        raise Unsupported("exits need a decoder of at least two layers, and this model's has one")
    if not spec.tie_word_embeddings:
        raise Unsupported("exits share a head that is tied to the embedding, and this model's is not tied")
    if spec.decoder_start_token_id != PAD or spec.eos_token_ids not in ((), (END,)):
        raise Unsupported(
            f"the recipe `calm` begins targets with token {PAD} and ends them with token {END}; this model begins with "
            f"{spec.decoder_start_token_id} and ends with {', '.join(map(str, spec.eos_token_ids))}"
        )
    return spec


def new_weights(spec: T5Spec, seed: int) -> dict[str, Tensor]:
    """First weights, as T5 draws them (Raffel et al. 2020), float32 on the CPU."""
    random, width = torch.Generator().manual_seed(seed), spec.hidden_size**-0.5
    spreads = {
        **dict.fromkeys(("k", "v", "wi", "wi_0", "wi_1", "relative_attention_bias"), width),
        **{"shared": 1.0, "q": width * spec.head_dim**-0.5, "o": (spec.num_heads * spec.head_dim) ** -0.5},
        "wo": spec.intermediate_size**-0.5,
    }
    return {
        name: torch.ones(size) if "norm" in name else torch.randn(size, generator=random) * spreads[name.split(".")[-2]]
        for name, size in expected_tensors(spec).items()
    }
