"""Reading a `T5Spec` from a Hugging Face `config.json` and the tensors beside it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from offramp.errors import Unsupported
from offramp.models.fields import Fields, end_tokens
from offramp.models.t5 import FEED_FORWARDS, T5Spec

NEUTRAL: dict[str, tuple[Any, ...]] = {
    "is_encoder_decoder": (True,),
    "is_decoder": (False,),
    "quantization_config": (),
}
"""Keys that change the arithmetic -> the values that do not."""

ACTIVATIONS = {"relu": "relu", "gated-gelu": "gelu_new"}
"""What Transformers calls the activation of a feed-forward layer, if it says so a second time."""


def t5_spec_from_hf(
    config: Mapping[str, Any], tensors: Collection[str], generation_config: Mapping[str, Any] | None = None
) -> T5Spec:
    """The T5 that a `config.json` describes, whose files hold `tensors` of these names.

    The LM head is the embedding where there is no `lm_head.weight`. Whether hidden states are scaled before it,
    `scale_decoder_outputs` says, which Transformers 5 writes; before that, tied heads were scaled and others not. The
    first token of an output and end-of-sequence ids are also read from `generation_config.json`.

    Raises:
        Unsupported: a key that asks for arithmetic that is not here.
        WeightsError: a key that is missing or has an impossible value.
    """
    fields = Fields(config, "config.json")
    generation = Fields(generation_config or {}, "generation_config.json")
    fields.refuse(NEUTRAL)
    feed_forward = fields.text("feed_forward_proj", "relu")
    if feed_forward not in FEED_FORWARDS:
        raise Unsupported(
            f"`feed_forward_proj` = {feed_forward!r} in config.json is not supported",
            hint="supported: " + ", ".join(f"`{name}`" for name in FEED_FORWARDS),
        )
    fields.refuse({"dense_act_fn": (ACTIVATIONS[feed_forward],), "is_gated_act": (feed_forward == "gated-gelu",)})
    num_layers = fields.integer("num_layers")
    start = generation if generation.has("decoder_start_token_id") else fields
    return T5Spec(
        num_layers=fields.integer("num_decoder_layers", num_layers),
        num_encoder_layers=num_layers,
        hidden_size=fields.integer("d_model"),
        intermediate_size=fields.integer("d_ff"),
        num_heads=fields.integer("num_heads"),
        head_dim=fields.integer("d_kv"),
        vocab_size=fields.integer("vocab_size"),
        rms_norm_eps=fields.number("layer_norm_epsilon", 1e-6),
        feed_forward=feed_forward,  # type: ignore[arg-type]
        num_buckets=fields.integer("relative_attention_num_buckets", 32),
        max_distance=fields.integer("relative_attention_max_distance", 128),
        tie_word_embeddings="lm_head.weight" not in tensors,
        scale_head=fields.flag("scale_decoder_outputs", fields.flag("tie_word_embeddings", True)),
        decoder_start_token_id=start.integer("decoder_start_token_id", fields.integer("pad_token_id", 0)),
        eos_token_ids=end_tokens(fields, generation),
    )
