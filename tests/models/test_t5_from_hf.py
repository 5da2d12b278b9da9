"""A `config.json` becomes the T5 that Transformers would build, or is refused by the key that is in the way."""

from __future__ import annotations

from typing import Any

import pytest
import transformers

from offramp.errors import OfframpError, Unsupported, WeightsError
from offramp.models import T5Spec, t5_spec_from_hf
from tests.models.t5_toys import SIZES

TIED, UNTIED = ("shared.weight",), ("shared.weight", "lm_head.weight")
MINIMAL = {"model_type": "t5", **SIZES, "eos_token_id": 1}


def spec_of(tensors: tuple[str, ...] = TIED, generation: dict[str, Any] | None = None, **changes: Any) -> T5Spec:
    return t5_spec_from_hf({**MINIMAL, **changes}, tensors, generation)


@pytest.mark.parametrize("feed_forward", ["relu", "gated-gelu"])
def test_sizes_are_those_of_the_configuration(feed_forward: str) -> None:
    config = transformers.T5Config(
        **{**SIZES, "feed_forward_proj": feed_forward, "layer_norm_epsilon": 1e-3, "eos_token_id": [1, 2]},
        relative_attention_num_buckets=16,
        relative_attention_max_distance=50,
    )
    spec = t5_spec_from_hf(config.to_dict(), TIED)
    assert (spec.num_layers, spec.num_encoder_layers, spec.hidden_size, spec.intermediate_size) == (3, 2, 16, 24)
    assert (spec.num_heads, spec.num_kv_heads, spec.head_dim, spec.vocab_size) == (3, 3, 4, SIZES["vocab_size"])
    assert (spec.num_buckets, spec.max_distance, spec.rms_norm_eps) == (16, 50, 1e-3)
    assert (spec.feed_forward, spec.is_gated) == (feed_forward, feed_forward == "gated-gelu")
    assert (spec.decoder_start_token_id, spec.eos_token_ids) == (0, (1, 2))


def test_what_a_file_leaves_out_has_the_meaning_that_transformers_gives_it() -> None:
    config = transformers.T5Config()
    keys = ("model_type", "vocab_size", "d_model", "d_kv", "d_ff", "num_layers", "num_heads", "eos_token_id")
    whole, short = config.to_dict(), {key: config.to_dict()[key] for key in keys}
    assert t5_spec_from_hf(short, TIED) == t5_spec_from_hf(whole, TIED)
    assert t5_spec_from_hf(short, TIED).num_layers == config.num_layers


@pytest.mark.parametrize(
    ("config", "tensors", "tied", "scaled"),
    [
        ({}, TIED, True, True),
        ({"tie_word_embeddings": True}, TIED, True, True),
        ({"tie_word_embeddings": False}, UNTIED, False, False),
        # As Transformers 5 writes them, for which every T5 is tied unless its files say otherwise.
        ({"tie_word_embeddings": True, "scale_decoder_outputs": False}, UNTIED, False, False),
        ({"tie_word_embeddings": True, "scale_decoder_outputs": False}, TIED, True, False),
        ({"tie_word_embeddings": True, "scale_decoder_outputs": True}, UNTIED, False, True),
    ],
)
def test_the_head_is_tied_by_the_files_and_scaled_by_the_configuration(
    config: dict[str, Any], tensors: tuple[str, ...], tied: bool, scaled: bool
) -> None:
    spec = spec_of(tensors, **config)
    assert (spec.tie_word_embeddings, spec.lm_head) == (tied, "shared.weight" if tied else "lm_head.weight")
    assert spec.head_scale == (0.25 if scaled else 1)


@pytest.mark.parametrize(
    ("config", "generation", "start"),
    [
        ({"decoder_start_token_id": 3}, None, 3),
        ({"decoder_start_token_id": 3}, {"decoder_start_token_id": 4}, 4),
        ({"decoder_start_token_id": None, "pad_token_id": 5}, {}, 5),
        ({"decoder_start_token_id": None}, {"eos_token_id": 2}, 0),
    ],
)
def test_an_output_starts_with_what_the_files_say_or_with_padding(
    config: dict[str, Any], generation: dict[str, Any] | None, start: int
) -> None:
    assert spec_of(generation=generation, **config).decoder_start_token_id == start


def refusal(changes: dict[str, Any], error: type[OfframpError]) -> OfframpError:
    with pytest.raises(error) as caught:
        spec_of(**changes)
    return caught.value


def test_another_feed_forward_layer_is_refused_with_the_list() -> None:
    error = refusal({"feed_forward_proj": "gated-silu"}, Unsupported)
    assert error.message == "`feed_forward_proj` = 'gated-silu' in config.json is not supported"
    assert error.hint == "supported: `relu`, `gated-gelu`"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dense_act_fn": "gelu"}, "`dense_act_fn` = 'gelu' in config.json is not supported"),
        ({"is_gated_act": True}, "`is_gated_act` = True in config.json is not supported"),
        ({"is_encoder_decoder": False}, "`is_encoder_decoder` = False in config.json is not supported"),
        ({"quantization_config": {"x": 1}}, "`quantization_config` = {'x': 1} in config.json is not supported"),
    ],
)
def test_arithmetic_that_is_not_here_is_refused_by_key(changes: dict[str, Any], message: str) -> None:
    assert refusal(changes, Unsupported).message == message


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"d_kv": None}, "config.json has no `d_kv`"),
        ({"d_model": "16"}, "`d_model` in config.json must be a whole number, not '16'"),
        ({"tie_word_embeddings": 1}, "`tie_word_embeddings` in config.json must be true or false, not 1"),
        ({"num_decoder_layers": 0}, "the model's `num_layers` is 0; it must be at least 1"),
        ({"num_heads": 0}, "the model's `num_heads` is 0; it must be at least 1"),
        (
            {"relative_attention_num_buckets": 2},
            "relative positions need an even number of buckets, at least 4, not 2",
        ),
        (
            {"relative_attention_max_distance": 16},
            "32 buckets of relative positions need a largest distance above 16, not 16",
        ),
        ({"decoder_start_token_id": 99}, "special token id 99 lies outside the vocabulary of 21"),
        ({"eos_token_id": [1, 99]}, "special token id 99 lies outside the vocabulary of 21"),
    ],
)
def test_values_that_make_no_model_are_refused(changes: dict[str, Any], message: str) -> None:
    assert refusal(changes, WeightsError).message == message
