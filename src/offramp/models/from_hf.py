"""Reading a `ModelSpec` from a Hugging Face `config.json`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from offramp.errors import Unsupported, WeightsError
from offramp.models.fields import Fields, end_tokens
from offramp.models.rope import ROPE_TYPES, RopeSpec
from offramp.models.spec import FAMILIES, Family, ModelSpec

NEUTRAL: dict[str, tuple[Any, ...]] = {
    "hidden_act": ("silu", "swish"),
    "partial_rotary_factor": (1,),
    "quantization_config": (),
    "is_encoder_decoder": (False,),
    "attn_logit_softcapping": (),
    "final_logit_softcapping": (),
    "attention_multiplier": (),
    "embedding_multiplier": (1,),
    "residual_multiplier": (1,),
    "logits_scaling": (1,),
    "logit_scale": (1,),
    "no_rope_layers": ([],),
    "num_experts": (0,),
    "num_local_experts": (0,),
    "use_mrope": (False,),
    "use_bidirectional_attention": (False,),
}
"""Keys that change the arithmetic -> the values that do not."""

WINDOW, FULL_LAYERS = 4096, 28
QWEN3_HEAD_DIM = 128
"""What Transformers takes where a file leaves out `sliding_window`, a Qwen file `max_window_layers`, or a Qwen3 file
`head_dim`."""


def spec_from_hf(config: Mapping[str, Any], generation_config: Mapping[str, Any] | None = None) -> ModelSpec:
    """The model that a `config.json` describes; end-of-sequence ids also from `generation_config.json`.

    Raises:
        Unsupported: another family, or a key that asks for arithmetic that is not here.
        WeightsError: a key that is missing or has an impossible value.
    """
    fields = Fields(config, "config.json")
    family = _family(fields)
    fields.refuse(NEUTRAL)
    num_layers = fields.integer("num_hidden_layers")
    num_heads = fields.integer("num_attention_heads")
    hidden_size = fields.integer("hidden_size")
    if num_heads < 1:
        raise WeightsError(f"`num_attention_heads` in config.json must be at least 1, not {num_heads}")
    attention_bias = family == "qwen2" or (family in ("llama", "qwen3") and fields.flag("attention_bias", False))
    window, windowed = _sliding(fields, family, num_layers)
    return ModelSpec(
        family=family,
        num_layers=num_layers,
        hidden_size=hidden_size,
        intermediate_size=fields.integer("intermediate_size"),
        num_heads=num_heads,
        num_kv_heads=fields.integer("num_key_value_heads", num_heads if family == "llama" else None),
        head_dim=fields.integer("head_dim", QWEN3_HEAD_DIM if family == "qwen3" else hidden_size // num_heads),
        vocab_size=fields.integer("vocab_size"),
        max_model_len=fields.integer("max_position_embeddings"),
        rms_norm_eps=fields.number("rms_norm_eps", 1e-6),
        rope=_rope(fields),
        tie_word_embeddings=fields.flag("tie_word_embeddings", False),
        attention_bias=attention_bias,
        attention_output_bias=attention_bias and family != "qwen2",
        mlp_bias=family == "llama" and fields.flag("mlp_bias", False),
        qk_norm=family == "qwen3",
        sliding_window=window,
        sliding_layers=windowed,
        eos_token_ids=end_tokens(fields, Fields(generation_config or {}, "generation_config.json")),
        bos_token_id=fields.integer("bos_token_id") if fields.has("bos_token_id") else None,
    )


def _family(fields: Fields) -> Family:
    name = fields.text("model_type")
    for family in FAMILIES:
        if name == family:
            return family  # type: ignore[return-value]
    raise Unsupported(
        f"model type `{name}` is not supported", hint="supported: " + ", ".join(f"`{f}`" for f in (*FAMILIES, "t5"))
    )


def _sliding(fields: Fields, family: Family, num_layers: int) -> tuple[int | None, tuple[int, ...]]:
    """The window and the layers it applies to: all for Mistral, those the Qwen switches select."""
    if family == "llama":
        return None, ()
    null = "sliding_window" in fields.values and not fields.has("sliding_window")
    if family == "mistral":
        return (None, ()) if null else (fields.integer("sliding_window", WINDOW), tuple(range(num_layers)))
    if null or not fields.flag("use_sliding_window", False):
        return None, ()
    if fields.has("layer_types"):
        kinds = fields.values["layer_types"]
        known = ("full_attention", "sliding_attention")
        if not isinstance(kinds, list) or len(kinds) != num_layers or any(kind not in known for kind in kinds):
            raise Unsupported(
                f"`layer_types` in config.json must name {num_layers} layers, each `full_attention` or "
                "`sliding_attention`"
            )
        layers = tuple(layer for layer, kind in enumerate(kinds) if kind == "sliding_attention")
    else:
        layers = tuple(range(fields.integer("max_window_layers", FULL_LAYERS), num_layers))
    return (fields.integer("sliding_window", WINDOW), layers) if layers else (None, ())


def _rope(fields: Fields) -> RopeSpec:
    """From `rope_parameters` (Transformers 5), or from `rope_theta` and `rope_scaling`; what the latter says counts
    where there are both, as when somebody extends the context of a model that was saved anew."""
    said: dict[str, Any] = {}
    for key in ("rope_parameters", "rope_scaling"):
        values = fields.values.get(key) or {}
        if not isinstance(values, Mapping):
            raise WeightsError(f"`{key}` in config.json must be an object, not {values!r}")
        said |= {"rope_type": values["type"], **values} if "type" in values else values
    rope = Fields(said, f"`{'rope_scaling' if fields.has('rope_scaling') else 'rope_parameters'}` of config.json")
    rope.refuse({"partial_rotary_factor": (1,), "mrope_section": ()})
    rope_type = rope.text("rope_type", "default")
    theta = rope.number("rope_theta", fields.number("rope_theta", 10_000.0))
    if rope_type == "default" or rope_type not in ROPE_TYPES:
        return RopeSpec(theta=theta, rope_type=rope_type)  # type: ignore[arg-type]
    max_len = fields.integer("max_position_embeddings")
    original = rope.integer("original_max_position_embeddings", max_len)
    return RopeSpec(
        theta=theta,
        rope_type=rope_type,  # type: ignore[arg-type]
        factor=rope.number("factor", max_len / original if rope_type == "yarn" and original > 0 else None),
        original_max_len=original,
        low_freq_factor=rope.number("low_freq_factor", 1.0),
        high_freq_factor=rope.number("high_freq_factor", 4.0),
        beta_fast=rope.number("beta_fast", 32.0),
        beta_slow=rope.number("beta_slow", 1.0),
        truncate=rope.flag("truncate", True),
        attention_factor=rope.number("attention_factor") if rope.has("attention_factor") else None,
        mscale=rope.number("mscale", 0.0),
        mscale_all_dim=rope.number("mscale_all_dim", 0.0),
    )
