"""What a decoder-only model of the Llama line looks like: everything that its arithmetic depends on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from offramp.errors import WeightsError
from offramp.models.rope import RopeSpec

Family = Literal["llama", "mistral", "qwen2", "qwen3"]
FAMILIES: tuple[str, ...] = get_args(Family)


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """Dimensions and switches of one model; all families share RMSNorm, gated SiLU and grouped-query attention.

    Args:
        family: which of `FAMILIES`.
        head_dim: size of one head; `num_heads * head_dim` need not equal `hidden_size`.
        max_model_len: tokens of context (`max_position_embeddings`).
        attention_bias: the Q, K and V projections have biases.
        attention_output_bias, mlp_bias: the output projection, and all three of the MLP, have biases.
        qk_norm: RMSNorm over each head of Q and K before RoPE (Qwen3).
        sliding_window: tokens a windowed layer attends to, itself included; None if no layer is windowed.
        sliding_layers: the windowed layers, from 0.
        eos_token_ids: tokens that end a generation, the usual one first.

    Raises:
        WeightsError: sizes that do not fit together.
    """

    family: Family
    num_layers: int
    hidden_size: int
    intermediate_size: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    vocab_size: int
    max_model_len: int
    rms_norm_eps: float
    rope: RopeSpec
    tie_word_embeddings: bool
    attention_bias: bool = False
    attention_output_bias: bool = False
    mlp_bias: bool = False
    qk_norm: bool = False
    sliding_window: int | None = None
    sliding_layers: tuple[int, ...] = ()
    eos_token_ids: tuple[int, ...] = ()
    bos_token_id: int | None = None

    def __post_init__(self) -> None:
        sizes = ("num_layers", "hidden_size", "intermediate_size", "num_heads", "num_kv_heads", "head_dim")
        for name in (*sizes, "vocab_size", "max_model_len"):
            if getattr(self, name) < 1:
                raise WeightsError(f"the model's `{name}` is {getattr(self, name)}; it must be at least 1")
        if self.num_heads % self.num_kv_heads:
            raise WeightsError(f"{self.num_heads} attention heads cannot share {self.num_kv_heads} KV heads evenly")
        if self.head_dim % 2:
            raise WeightsError(f"RoPE needs an even head size, not {self.head_dim}")
        if bool(self.sliding_layers) != (self.sliding_window is not None):
            raise WeightsError("a sliding window needs layers to apply to, and the other way round")
        if self.sliding_window is not None and self.sliding_window < 1:
            raise WeightsError(f"the model's `sliding_window` is {self.sliding_window}; it must be at least 1")
        for token in (*self.eos_token_ids, *([] if self.bos_token_id is None else [self.bos_token_id])):
            if not 0 <= token < self.vocab_size:
                raise WeightsError(f"special token id {token} lies outside the vocabulary of {self.vocab_size}")

    @property
    def final_norm(self) -> str:
        """The tensor of the norm before the LM head."""
        return "model.norm.weight"

    @property
    def lm_head(self) -> str:
        """The tensor of the LM head."""
        return "model.embed_tokens.weight" if self.tie_word_embeddings else "lm_head.weight"

    @property
    def head_scale(self) -> float:
        """What hidden states are multiplied by between the final norm and the LM head: nothing changes them."""
        return 1.0

    def window_at(self, layer: int) -> int | None:
        """The attention window of a layer (from 0), or None where it sees everything."""
        return self.sliding_window if layer in self.sliding_layers else None
