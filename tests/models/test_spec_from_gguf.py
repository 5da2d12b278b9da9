"""GGUF metadata becomes the model that was converted, or is refused by the key that is in the way."""

from __future__ import annotations

from typing import Any

import pytest

from offramp.errors import Unsupported
from offramp.models import spec_from_gguf
from tests.models.toys import VOCAB, gguf_numbers

SHAPES: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (len(VOCAB), 16)}


def metadata(arch: str = "llama", **changes: Any) -> dict[str, Any]:
    own = {f"{arch}.{key.replace('__', '.')}": value for key, value in changes.items()}
    return {"general.architecture": arch, **gguf_numbers(arch), **own}


def test_sizes_are_those_of_the_metadata() -> None:
    spec = spec_from_gguf(metadata(), SHAPES)
    assert (spec.num_layers, spec.hidden_size, spec.intermediate_size) == (2, 16, 24)
    assert (spec.num_heads, spec.num_kv_heads, spec.head_dim) == (4, 2, 4)
    assert (spec.vocab_size, spec.max_model_len, spec.eos_token_ids, spec.bos_token_id) == (len(VOCAB), 32, (0,), 0)


def test_the_embedding_is_tied_where_there_is_no_head() -> None:
    assert spec_from_gguf(metadata(), SHAPES).tie_word_embeddings
    assert not spec_from_gguf(metadata(), {**SHAPES, "lm_head.weight": (len(VOCAB), 16)}).tie_word_embeddings


def test_biases_show_in_the_tensors() -> None:
    spec = spec_from_gguf(metadata("qwen2"), {**SHAPES, "model.layers.0.self_attn.q_proj.bias": (16,)})
    assert (spec.attention_bias, spec.attention_output_bias, spec.mlp_bias) == (True, False, False)


def test_an_end_of_turn_token_ends_too() -> None:
    values = {**metadata(), "tokenizer.ggml.eot_token_id": 5}
    assert spec_from_gguf(values, SHAPES).eos_token_ids == (0, 5)


def test_control_tokens_that_say_so_end_too() -> None:
    texts = ["<s>", "a", "<|endoftext|>", "<|eot_id|>", "<|eom_id|>", "<|im_end|>"]
    values = {
        **metadata(),
        "tokenizer.ggml.eos_token_id": 3,
        "tokenizer.ggml.eom_token_id": 4,
        "tokenizer.ggml.tokens": texts,
        "tokenizer.ggml.token_type": [3, 1, 3, 3, 3, 1],
    }
    assert spec_from_gguf(values, SHAPES).eos_token_ids == (3, 4, 2)


def test_rope_scaling_is_read() -> None:
    values = metadata(rope__scaling__type="yarn", rope__scaling__factor=4.0, rope__scaling__original_context_length=8)
    rope = spec_from_gguf(values, SHAPES).rope
    assert (rope.rope_type, rope.factor, rope.original_max_len) == ("yarn", 4.0, 8)


def test_rope_scaling_in_its_old_spelling_is_linear() -> None:
    rope = spec_from_gguf(metadata(rope__scale_linear=2.0), SHAPES).rope
    assert (rope.rope_type, rope.factor) == ("linear", 2.0)


def test_rope_scaling_by_a_factor_alone_is_linear() -> None:
    rope = spec_from_gguf(metadata(rope__scaling__factor=2.0), SHAPES).rope
    assert (rope.rope_type, rope.factor) == ("linear", 2.0)


def test_rope_divisors_are_taken_over() -> None:
    assert spec_from_gguf(metadata(), SHAPES, (1.0, 8.0)).rope.divisors == (1.0, 8.0)


def test_a_window_as_wide_as_the_context_is_none() -> None:
    assert spec_from_gguf(metadata(attention__sliding_window=32), SHAPES).sliding_window is None


def test_another_architecture_is_refused_with_the_list() -> None:
    with pytest.raises(Unsupported) as caught:
        spec_from_gguf({"general.architecture": "gemma3"}, {})
    assert caught.value.message == "GGUF architecture `gemma3` is not supported"
    assert caught.value.hint == "supported: `llama`, `qwen2`, `qwen3`"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"expert_count": 8}, "`expert_count` = 8 in the `llama.*` metadata is not supported"),
        ({"rope__dimension_count": 2}, "`rope.dimension_count` = 2 in the `llama.*` metadata is not supported"),
        ({"attention__value_length": 8}, "`attention.value_length` = 8 in the `llama.*` metadata is not supported"),
        ({"attention__sliding_window": 8}, "`attention.sliding_window` = 8 in the `llama.*` metadata is not supported"),
        (
            {"rope__scaling__type": "longrope"},
            "rope type `longrope` is not supported; these are: `default`, `linear`, `llama3`, `yarn`",
        ),
    ],
)
def test_arithmetic_that_is_not_here_is_refused_by_key(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(Unsupported) as caught:
        spec_from_gguf(metadata(**changes), SHAPES)
    assert caught.value.message == message
