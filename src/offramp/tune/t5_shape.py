"""What a T5 that is trained looks like, and its first weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from offramp.errors import InvalidParameter, Unsupported, did_you_mean
from offramp.models.fields import Fields
from offramp.types.checks import check_integer

PAD, END = 0, 1
"""Token ids: what pads a batch and begins every target, and what ends sources and targets."""

ACTIVATIONS = {"gated-gelu": True, "relu": False}
"""The two MLPs of T5, and whether they have a gate: T5 1.1's and T5 1.0's."""


@dataclass(frozen=True, slots=True)
class T5Shape:
    """Sizes of a T5 with one matrix for the embedding and the LM head. Validated on construction.

    Args:
        layers, decoder_layers: of the encoder, and of the decoder.
        width: size of a hidden state.
        heads, head_dim: of every attention.
        inner: inner size of the MLPs.
        vocabulary: tokens.
        buckets, distance: of the relative position bias.
        activation: `gated-gelu` (T5 1.1) or `relu` (T5 1.0).
        eps: of RMSNorm.
    """

    layers: int = 4
    decoder_layers: int = 16
    width: int = 256
    heads: int = 4
    head_dim: int = 64
    inner: int = 512
    vocabulary: int = 4096
    buckets: int = 32
    distance: int = 128
    activation: str = "gated-gelu"
    eps: float = 1e-6

    def __post_init__(self) -> None:
        for field in fields(self)[:7]:
            check_integer(field.name, getattr(self, field.name), 1)
        check_integer("decoder_layers", self.decoder_layers, 2)
        check_integer("vocabulary", self.vocabulary, 300)
        check_integer("buckets", self.buckets, 4)
        check_integer("distance", self.distance, self.buckets // 2 + 1)

    def config(self) -> dict[str, Any]:
        """The model's `config.json`."""
        return {
            "architectures": ["T5ForConditionalGeneration"],
            "model_type": "t5",
            "is_encoder_decoder": True,
            "num_layers": self.layers,
            "num_decoder_layers": self.decoder_layers,
            "d_model": self.width,
            "num_heads": self.heads,
            "d_kv": self.head_dim,
            "d_ff": self.inner,
            "vocab_size": self.vocabulary,
            "relative_attention_num_buckets": self.buckets,
            "relative_attention_max_distance": self.distance,
            "feed_forward_proj": self.activation,
            "layer_norm_epsilon": self.eps,
            "tie_word_embeddings": True,
            "dropout_rate": 0.0,
            "pad_token_id": PAD,
            "eos_token_id": END,
            "decoder_start_token_id": PAD,
            "dtype": "float32",
        }


def parse_shape(text: str) -> T5Shape:
    """A shape from `layers=4,decoder_layers=16,width=256`; what is left out has its default.

    Raises:
        InvalidParameter: it says something else.
    """
    names = [field.name for field in fields(T5Shape)[:7]]
    values: dict[str, int] = {}
    for part in text.split(","):
        name, _, value = part.partition("=")
        if name not in names:
            raise InvalidParameter(f"a shape has no `{name}`", param="shape", hint=did_you_mean(name, names))
        if not value.isdecimal():
            raise InvalidParameter(
                f"`{name}` in a shape must be a whole number, not {value!r}",
                param="shape",
                hint="such as `layers=4,decoder_layers=16,width=256`",
            )
        values[name] = int(value)
    return replace(T5Shape(), **values)  # type: ignore[arg-type]  # whole numbers all


def shape_of_config(config: Mapping[str, Any]) -> T5Shape:
    """The shape that a T5's `config.json` describes.

    Raises:
        Unsupported: it is no T5, or one that cannot be trained here.
        WeightsError: a key is missing or has an impossible value.
    """
    found = Fields(config, "config.json")
    if found.text("model_type") != "t5":
        raise Unsupported(f"the recipe `calm` trains a T5, and this is a `{config['model_type']}`")
    activation = found.text("feed_forward_proj", "relu")
    if activation not in ACTIVATIONS:
        raise Unsupported(f"an MLP `{activation}` cannot be trained here, only `gated-gelu` and `relu`")
    if not found.flag("tie_word_embeddings", True):
        raise Unsupported("exits share a scaled head that is tied to the embedding, and this model's is not tied")
    ids = [found.integer(key, PAD) for key in ("pad_token_id", "decoder_start_token_id")]
    if ids != [PAD, PAD] or found.token_ids("eos_token_id") not in ((), (END,)):
        raise Unsupported(f"a T5 pads and begins with token {PAD} and ends with token {END}, and this one does not")
    layers = found.integer("num_layers")
    return T5Shape(
        layers=layers,
        decoder_layers=found.integer("num_decoder_layers", layers),
        width=found.integer("d_model"),
        heads=found.integer("num_heads"),
        head_dim=found.integer("d_kv"),
        inner=found.integer("d_ff"),
        vocabulary=found.integer("vocab_size"),
        buckets=found.integer("relative_attention_num_buckets", 32),
        distance=found.integer("relative_attention_max_distance", 128),
        activation=activation,
        eps=found.number("layer_norm_epsilon", 1e-6),
    )


def tensor_shapes(shape: T5Shape) -> dict[str, tuple[int, ...]]:
    """Hugging Face name -> shape of every tensor."""
    d, m, inner = shape.width, shape.inner, shape.heads * shape.head_dim
    found: dict[str, tuple[int, ...]] = {"shared.weight": (shape.vocabulary, d)}
    for stack, count in (("encoder", shape.layers), ("decoder", shape.decoder_layers)):
        attentions = ["SelfAttention"] if stack == "encoder" else ["SelfAttention", "EncDecAttention"]
        for index in range(count):
            block = f"{stack}.block.{index}.layer."
            for place, attention in enumerate(attentions):
                prefix = f"{block}{place}.{attention}."
                found |= {f"{prefix}{name}.weight": (inner, d) for name in "qkv"}
                found[f"{prefix}o.weight"] = (d, inner)
                found[f"{block}{place}.layer_norm.weight"] = (d,)
            place = len(attentions)
            into = ("wi_0", "wi_1") if ACTIVATIONS[shape.activation] else ("wi",)
            found |= {f"{block}{place}.DenseReluDense.{name}.weight": (m, d) for name in into}
            found[f"{block}{place}.DenseReluDense.wo.weight"] = (d, m)
            found[f"{block}{place}.layer_norm.weight"] = (d,)
        found[f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"] = (shape.buckets, shape.heads)
        found[f"{stack}.final_layer_norm.weight"] = (d,)
    return found


def new_weights(shape: T5Shape, seed: int) -> dict[str, Tensor]:
    """First weights, as T5 draws them (Raffel et al. 2020), float32 on the CPU."""
    random, inner = torch.Generator().manual_seed(seed), shape.heads * shape.head_dim
    spreads = {
        **{"shared": 1.0, "q": (shape.width * shape.head_dim) ** -0.5, "k": shape.width**-0.5, "v": shape.width**-0.5},
        **{"o": inner**-0.5, "wi": shape.width**-0.5, "wi_0": shape.width**-0.5, "wi_1": shape.width**-0.5},
        **{"wo": shape.inner**-0.5, "relative_attention_bias": shape.width**-0.5},
    }
    return {
        name: torch.ones(size) if "norm" in name else torch.randn(size, generator=random) * spreads[name.split(".")[-2]]
        for name, size in tensor_shapes(shape).items()
    }
