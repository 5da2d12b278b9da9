"""Reading a `ModelSpec` from the metadata of a GGUF file (key names: llama.cpp, gguf-py/gguf/constants.py)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from offramp.errors import Unsupported
from offramp.models.fields import Fields
from offramp.models.rope import RopeSpec
from offramp.models.spec import Family, ModelSpec
from offramp.tokenizer.from_gguf import CONTROL
from offramp.weights.gguf import GGUFWeights

ARCHITECTURES: dict[str, Family] = {"llama": "llama", "qwen2": "qwen2", "qwen3": "qwen3"}
"""GGUF architecture -> family. Mistral checkpoints are converted as `llama`."""

NEUTRAL: dict[str, tuple[Any, ...]] = {
    "expert_count": (0,),
    "logit_scale": (0, 1),
    "embedding_scale": (0, 1),
    "residual_scale": (0, 1),
    "attention.scale": (0,),
    "attention.clamp_kqv": (0,),
    "attention.max_alibi_bias": (0,),
    "attention.causal": (True,),
    "attn_logit_softcapping": (0,),
    "final_logit_softcapping": (0,),
    "use_parallel_residual": (False,),
    "rope.scaling.attn_factor": (1,),
    "rope.scaling.yarn_ext_factor": (1,),
    "rope.scaling.yarn_attn_factor": (1,),
    "rope.scaling.yarn_log_multiplier": (0,),
}
"""Keys (after the architecture's prefix) that change the arithmetic -> the values that do not."""

END_TEXTS = frozenset({"<|eot_id|>", "<|eom_id|>", "<|im_end|>", "<|end_of_text|>", "<|endoftext|>"})


def spec_from_gguf(
    metadata: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]], rope_divisors: tuple[float, ...] = ()
) -> ModelSpec:
    """The model that a GGUF file holds.

    The format leaves some switches to the tensors: whether projections have biases and whether the LM head is tied
    show in `shapes` (Hugging Face names), and Llama 3.1's RoPE scaling is a tensor, `rope_divisors`.

    Raises:
        Unsupported: another architecture, or a key that asks for arithmetic that is not here.
        WeightsError: a key that is missing or has an impossible value.
    """
    general = Fields(metadata, "the GGUF metadata")
    arch = general.text("general.architecture")
    if arch not in ARCHITECTURES:
        raise Unsupported(
            f"GGUF architecture `{arch}` is not supported",
            hint="supported: " + ", ".join(f"`{name}`" for name in ARCHITECTURES),
        )
    prefix = f"{arch}."
    own = {key.removeprefix(prefix): value for key, value in metadata.items() if key.startswith(prefix)}
    fields = Fields(own, f"the `{prefix}*` metadata")
    fields.refuse(NEUTRAL)
    num_heads = fields.integer("attention.head_count")
    hidden_size = fields.integer("embedding_length")
    head_dim = fields.integer("attention.key_length", hidden_size // max(num_heads, 1))
    max_model_len = fields.integer("context_length")
    fields.refuse({"attention.value_length": (head_dim,), "rope.dimension_count": (head_dim,)})
    if fields.integer("attention.sliding_window", max_model_len) < max_model_len:
        fields.refuse({"attention.sliding_window": (0,)})
    return ModelSpec(
        family=ARCHITECTURES[arch],
        num_layers=fields.integer("block_count"),
        hidden_size=hidden_size,
        intermediate_size=fields.integer("feed_forward_length"),
        num_heads=num_heads,
        num_kv_heads=fields.integer("attention.head_count_kv", num_heads),
        head_dim=head_dim,
        vocab_size=shapes.get("model.embed_tokens.weight", (0,))[0],
        max_model_len=max_model_len,
        rms_norm_eps=fields.number("attention.layer_norm_rms_epsilon"),
        rope=_rope(fields, rope_divisors),
        tie_word_embeddings="lm_head.weight" not in shapes,
        attention_bias="model.layers.0.self_attn.q_proj.bias" in shapes,
        attention_output_bias="model.layers.0.self_attn.o_proj.bias" in shapes,
        mlp_bias="model.layers.0.mlp.gate_proj.bias" in shapes,
        qk_norm=arch == "qwen3",
        eos_token_ids=_ends(general),
        bos_token_id=next(iter(general.token_ids("tokenizer.ggml.bos_token_id")), None),
    )


def _ends(general: Fields) -> tuple[int, ...]:
    """The tokens that end an output: those the metadata name, and control tokens whose text says so, as in llama.cpp:
    a file names one or two, where `generation_config.json` lists all."""
    named = [i for kind in ("eos", "eot", "eom") for i in general.token_ids(f"tokenizer.ggml.{kind}_token_id")]
    texts, kinds = (general.values.get(f"tokenizer.ggml.{key}") for key in ("tokens", "token_type"))
    if isinstance(texts, list) and isinstance(kinds, list):
        pairs = enumerate(zip(texts, kinds, strict=False))
        named += [i for i, (text, kind) in pairs if kind == CONTROL and text in END_TEXTS]
    return tuple(dict.fromkeys(named))


def spec_of_gguf(weights: GGUFWeights) -> ModelSpec:
    """`spec_from_gguf` on an open file."""
    return spec_from_gguf(weights.metadata, weights.shapes(), weights.rope_divisors())


def _rope(fields: Fields, divisors: tuple[float, ...]) -> RopeSpec:
    theta = fields.number("rope.freq_base", 10_000.0)
    legacy = fields.number("rope.scale_linear", 0.0)
    name = fields.text("rope.scaling.type", "linear" if legacy or fields.has("rope.scaling.factor") else "none")
    if name not in ("linear", "yarn"):
        rope_type = "default" if name == "none" else name
        return RopeSpec(theta=theta, rope_type=rope_type, divisors=divisors)  # type: ignore[arg-type]
    return RopeSpec(
        theta=theta,
        rope_type=name,  # type: ignore[arg-type]
        factor=fields.number("rope.scaling.factor", legacy or None),
        original_max_len=fields.integer("rope.scaling.original_context_length", fields.integer("context_length")),
        beta_fast=fields.number("rope.scaling.yarn_beta_fast", 32.0),
        beta_slow=fields.number("rope.scaling.yarn_beta_slow", 1.0),
        divisors=divisors,
    )
