"""What an encoder-decoder model of the T5 line looks like: everything that its arithmetic depends on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from offramp.errors import Unsupported, WeightsError

FeedForward = Literal["relu", "gated-gelu"]
FEED_FORWARDS: tuple[str, ...] = get_args(FeedForward)

MAX_LEN = 1 << 15
"""Positions are relative, so a T5 has no longest text of its own; its encoder's attention grows with the square."""


@dataclass(frozen=True, slots=True)
class T5Spec:
    """Dimensions and switches of one model: T5 1.0 (Raffel et al. 2020), 1.1 or Flan. What it computes: docs/design.md.

    Args:
        num_layers: layers of the decoder, which exits count; the encoder has `num_encoder_layers`.
        head_dim: size of one head; `num_heads * head_dim` need not equal `hidden_size`.
        max_model_len: the longest source, and the longest output.
        feed_forward: which of `FEED_FORWARDS`; GELU is its tanh approximation.
        num_buckets, max_distance: see `offramp.models.relative`. Encoder and decoder have a table of biases each.
        tie_word_embeddings: the LM head is the embedding.
        scale_head: hidden states are multiplied by hidden_size^-0.5 between the final norm and the LM head.
        decoder_start_token_id: comes before every output.
        eos_token_ids: tokens that end a generation, the usual one first.

    Raises:
        Unsupported: another feed-forward layer.
        WeightsError: sizes that do not fit together.
    """

    num_layers: int
    num_encoder_layers: int
    hidden_size: int
    intermediate_size: int
    num_heads: int
    head_dim: int
    vocab_size: int
    rms_norm_eps: float
    feed_forward: FeedForward
    num_buckets: int
    max_distance: int
    tie_word_embeddings: bool
    scale_head: bool
    decoder_start_token_id: int
    eos_token_ids: tuple[int, ...] = ()
    max_model_len: int = MAX_LEN

    def __post_init__(self) -> None:
        sizes = ("num_layers", "num_encoder_layers", "hidden_size", "intermediate_size", "num_heads", "head_dim")
        for name in (*sizes, "vocab_size", "max_model_len"):
            if getattr(self, name) < 1:
                raise WeightsError(f"the model's `{name}` is {getattr(self, name)}; it must be at least 1")
        if self.feed_forward not in FEED_FORWARDS:
            allowed = ", ".join(f"`{name}`" for name in FEED_FORWARDS)
            raise Unsupported(
                f"feed-forward layers of kind `{self.feed_forward}` are not supported; these are: {allowed}"
            )
        if self.num_buckets < 4 or self.num_buckets % 2:
            raise WeightsError(f"relative positions need an even number of buckets, at least 4, not {self.num_buckets}")
        if self.max_distance <= self.num_buckets // 2:
            raise WeightsError(
                f"{self.num_buckets} buckets of relative positions need a largest distance above "
                f"{self.num_buckets // 2}, not {self.max_distance}"
            )
        for token in (*self.eos_token_ids, self.decoder_start_token_id):
            if not 0 <= token < self.vocab_size:
                raise WeightsError(f"special token id {token} lies outside the vocabulary of {self.vocab_size}")

    @property
    def num_kv_heads(self) -> int:
        """Heads of K and V: as many as of Q."""
        return self.num_heads

    @property
    def is_gated(self) -> bool:
        """Whether the feed-forward layer multiplies its activation by a second projection."""
        return self.feed_forward == "gated-gelu"

    @property
    def final_norm(self) -> str:
        """The tensor of the norm before the LM head."""
        return "decoder.final_layer_norm.weight"

    @property
    def lm_head(self) -> str:
        """The tensor of the LM head."""
        return "shared.weight" if self.tie_word_embeddings else "lm_head.weight"

    @property
    def head_scale(self) -> float:
        """What hidden states are multiplied by between the final norm and the LM head."""
        return self.hidden_size**-0.5 if self.scale_head else 1.0
