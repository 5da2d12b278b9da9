"""A `config.json` becomes the model that Transformers would build, or is refused by the key that is in the way."""

from __future__ import annotations

from typing import Any

import pytest

from offramp.errors import OfframpError, Unsupported, WeightsError
from offramp.models import spec_from_hf
from offramp.models.spec import FAMILIES
from tests.models.toys import SIZES, config

MINIMAL = {"model_type": "llama", **SIZES}


@pytest.mark.parametrize("family", FAMILIES)
def test_sizes_are_those_of_the_configuration(family: str) -> None:
    reference = config(family, head_dim=8, rms_norm_eps=1e-3, tie_word_embeddings=True)
    spec = spec_from_hf(reference.to_dict())
    assert spec.family == family
    assert (spec.num_layers, spec.hidden_size, spec.intermediate_size) == (2, 16, 24)
    assert (spec.num_heads, spec.num_kv_heads, spec.head_dim) == (4, 2, 8)
    assert (spec.vocab_size, spec.max_model_len, spec.rms_norm_eps) == (SIZES["vocab_size"], 32, 1e-3)
    assert spec.tie_word_embeddings


def test_what_an_old_llama_file_leaves_out_has_its_old_meaning() -> None:
    values = {key: value for key, value in MINIMAL.items() if key != "num_key_value_heads"}
    spec = spec_from_hf(values)
    assert (spec.num_kv_heads, spec.head_dim, spec.rms_norm_eps, spec.rope.theta) == (4, 4, 1e-6, 10_000.0)
    assert not spec.tie_word_embeddings


@pytest.mark.parametrize(
    ("family", "switch", "in_qkv", "in_output"),
    [
        ("llama", False, False, False),
        ("llama", True, True, True),
        ("mistral", True, False, False),
        ("qwen2", False, True, False),
        ("qwen3", True, True, True),
    ],
)
def test_each_family_has_its_attention_biases(family: str, switch: bool, in_qkv: bool, in_output: bool) -> None:
    spec = spec_from_hf({**config(family).to_dict(), "attention_bias": switch})
    assert (spec.attention_bias, spec.attention_output_bias) == (in_qkv, in_output)


@pytest.mark.parametrize("family", FAMILIES)
def test_only_qwen3_normalises_queries_and_keys(family: str) -> None:
    assert spec_from_hf(config(family).to_dict()).qk_norm == (family == "qwen3")


def test_qwen3_heads_have_size_128_unless_told() -> None:
    assert spec_from_hf({**MINIMAL, "model_type": "qwen3"}).head_dim == 128


@pytest.mark.parametrize("key", ["type", "rope_type"])
def test_old_and_new_spellings_of_rope_agree(key: str) -> None:
    old = {**MINIMAL, "rope_theta": 5e5, "rope_scaling": {key: "linear", "factor": 2.0}}
    new = {**MINIMAL, "rope_parameters": {"rope_type": "linear", "rope_theta": 5e5, "factor": 2.0}}
    assert spec_from_hf(old).rope == spec_from_hf(new).rope


@pytest.mark.parametrize("key", ["type", "rope_type"])
def test_an_extension_of_the_context_counts_beside_the_parameters_it_was_added_to(key: str) -> None:
    saved = {"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}}
    added = {key: "yarn", "factor": 4.0, "original_max_position_embeddings": 8}
    rope = spec_from_hf({**MINIMAL, **saved, "rope_scaling": added}).rope
    assert (rope.rope_type, rope.theta, rope.factor, rope.original_max_len) == ("yarn", 5e5, 4.0, 8)


def test_yarn_without_a_factor_takes_the_ratio_of_contexts() -> None:
    scaling = {"rope_type": "yarn", "original_max_position_embeddings": 8}
    assert spec_from_hf({**MINIMAL, "rope_scaling": scaling}).rope.factor == 4.0


@pytest.mark.parametrize(
    ("values", "window", "layers"),
    [
        ({"model_type": "llama", "sliding_window": 4}, None, ()),
        ({"model_type": "mistral", "sliding_window": 4}, 4, (0, 1)),
        ({"model_type": "mistral", "sliding_window": None}, None, ()),
        ({"model_type": "mistral"}, 4096, (0, 1)),
        ({"model_type": "qwen2", "sliding_window": 4}, None, ()),
        ({"model_type": "qwen2", "sliding_window": 4, "use_sliding_window": True, "max_window_layers": 1}, 4, (1,)),
        ({"model_type": "qwen3", "sliding_window": 4, "use_sliding_window": True, "max_window_layers": 2}, None, ()),
        ({"model_type": "qwen2", "use_sliding_window": True, "max_window_layers": 1}, 4096, (1,)),
        ({"model_type": "qwen2", "use_sliding_window": True, "sliding_window": None}, None, ()),
        ({"model_type": "qwen2", "use_sliding_window": True, "sliding_window": 4}, None, ()),
        (
            {
                "model_type": "qwen3",
                "sliding_window": 4,
                "use_sliding_window": True,
                "layer_types": ["sliding_attention", "full_attention"],
            },
            4,
            (0,),
        ),
    ],
)
def test_the_window_covers_the_layers_that_the_family_says(
    values: dict[str, Any], window: int | None, layers: tuple[int, ...]
) -> None:
    spec = spec_from_hf({**MINIMAL, **values})
    assert (spec.sliding_window, spec.sliding_layers) == (window, layers)
    assert [spec.window_at(layer) for layer in range(2)] == [window if i in layers else None for i in range(2)]


@pytest.mark.parametrize("window", [0, -1])
def test_a_window_that_sees_nothing_is_refused(window: int) -> None:
    error = refusal({"model_type": "mistral", "sliding_window": window}, WeightsError)
    assert error.message == f"the model's `sliding_window` is {window}; it must be at least 1"


@pytest.mark.parametrize(
    ("in_config", "in_generation", "expected"),
    [(0, None, (0,)), ([1, 2], None, (1, 2)), (0, 5, (5, 0)), (0, [3, 0], (3, 0)), (None, [4], (4,)), (None, None, ())],
)
def test_end_tokens_come_from_both_files(in_config: Any, in_generation: Any, expected: tuple[int, ...]) -> None:
    generation = None if in_generation is None else {"eos_token_id": in_generation}
    assert spec_from_hf({**MINIMAL, "eos_token_id": in_config}, generation).eos_token_ids == expected


def refusal(changes: dict[str, Any], error: type[OfframpError]) -> OfframpError:
    with pytest.raises(error) as caught:
        spec_from_hf({**MINIMAL, **changes})
    return caught.value


def test_another_family_is_refused_with_the_list() -> None:
    error = refusal({"model_type": "gpt2"}, Unsupported)
    assert error.message == "model type `gpt2` is not supported"
    assert error.hint == "supported: `llama`, `mistral`, `qwen2`, `qwen3`, `t5`"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_act": "gelu"}, "`hidden_act` = 'gelu' in config.json is not supported"),
        ({"partial_rotary_factor": 0.5}, "`partial_rotary_factor` = 0.5 in config.json is not supported"),
        ({"num_local_experts": 8}, "`num_local_experts` = 8 in config.json is not supported"),
        (
            {"quantization_config": {"quant_method": "gptq"}},
            "`quantization_config` = {'quant_method': 'gptq'} in config.json is not supported",
        ),
        (
            {"rope_scaling": {"type": "dynamic", "factor": 2.0}},
            "rope type `dynamic` is not supported; these are: `default`, `linear`, `llama3`, `yarn`",
        ),
        (
            {"rope_scaling": {"rope_type": "longrope", "short_factor": [1], "long_factor": [2]}},
            "rope type `longrope` is not supported; these are: `default`, `linear`, `llama3`, `yarn`",
        ),
        (
            {"rope_parameters": {"partial_rotary_factor": 0.5}},
            "`partial_rotary_factor` = 0.5 in `rope_parameters` of config.json is not supported",
        ),
        (
            {"model_type": "qwen2", "use_sliding_window": True, "sliding_window": 4, "layer_types": ["x"]},
            "`layer_types` in config.json must name 2 layers, each `full_attention` or `sliding_attention`",
        ),
    ],
)
def test_arithmetic_that_is_not_here_is_refused_by_key(changes: dict[str, Any], message: str) -> None:
    assert refusal(changes, Unsupported).message == message


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_size": None}, "config.json has no `hidden_size`"),
        ({"hidden_size": "16"}, "`hidden_size` in config.json must be a whole number, not '16'"),
        ({"rms_norm_eps": [1]}, "`rms_norm_eps` in config.json must be a number, not [1]"),
        ({"tie_word_embeddings": 1}, "`tie_word_embeddings` in config.json must be true or false, not 1"),
        ({"model_type": 3}, "`model_type` in config.json must be a string, not 3"),
        ({"eos_token_id": "a"}, "`eos_token_id` in config.json must be a token id or a list of them, not 'a'"),
        ({"rope_scaling": [1]}, "`rope_scaling` in config.json must be an object, not [1]"),
        ({"rope_scaling": {"type": "linear"}}, "`rope_scaling` of config.json has no `factor`"),
        ({"num_attention_heads": 0}, "`num_attention_heads` in config.json must be at least 1, not 0"),
        ({"num_hidden_layers": 0}, "the model's `num_layers` is 0; it must be at least 1"),
        ({"num_key_value_heads": 3}, "4 attention heads cannot share 3 KV heads evenly"),
        ({"head_dim": 5}, "RoPE needs an even head size, not 5"),
        ({"eos_token_id": 999}, "special token id 999 lies outside the vocabulary of 258"),
    ],
)
def test_values_that_make_no_model_are_refused(changes: dict[str, Any], message: str) -> None:
    assert refusal(changes, WeightsError).message == message
