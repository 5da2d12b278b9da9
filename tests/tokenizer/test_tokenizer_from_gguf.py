"""A tokenizer from GGUF metadata encodes as the model's own tokenizer does."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import pre_tokenizers
from transformers import AutoTokenizer

from offramp.errors import TokenizerError
from offramp.tokenizer import Tokenizer, tokenizer_from_gguf
from offramp.weights import GGUFWeights
from tests.models.real import smollm2
from tests.tokenizer.toys import BYTE_VOCAB, gguf_metadata

TEXTS = [
    "",
    "Hello, world!",
    "The year is 2024, and 3.14159 is  12 of  7.",
    "naïve café — “quotes” … ½ ① ٣",
    "😀👩‍👩‍👧 日本語 한국어 العربية \u200b\ufeff",
    "def f(x):\n\treturn x ** 2  # squared\n\n\nprint(f(10))",
    "<|im_start|>user\nhi<|im_end|>\n<|endoftext|>",
    "<|im_start|> <repo_name> don't I'LL we'Ve",
    "   leading, trailing   \n \r\n\t ",
    "a" * 300,
]


@cache
def ours() -> Tokenizer:
    return tokenizer_from_gguf(GGUFWeights(smollm2()).metadata)


@cache
def reference() -> Any:
    """Transformers' reading of the same file, with SmolLM2's own pre-tokenizer.

    Its GGUF reader knows one pre-tokenizer for all Llama files, which does not split digits off the spaces before
    them.
    """
    path = smollm2()
    tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), tokenizer.backend_tokenizer.pre_tokenizer]
    )
    return tokenizer


@pytest.mark.parametrize("text", TEXTS)
def test_the_real_tokenizer_encodes_as_transformers(text: str) -> None:
    assert ours().encode(text) == reference().encode(text)


@settings(max_examples=200, deadline=None)
@given(text=st.text())
def test_the_real_tokenizer_encodes_any_text_as_transformers(text: str) -> None:
    assert ours().encode(text) == reference().encode(text)


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("skip", [True, False])
def test_the_real_tokenizer_decodes_as_transformers(text: str, skip: bool) -> None:
    ids = reference().encode(text)
    assert ours().decode(ids, skip) == reference().decode(ids, skip_special_tokens=skip)


def test_the_real_chat_template_renders_as_transformers() -> None:
    chat = [{"role": "user", "content": "What is 2+2?"}, {"role": "assistant", "content": "4"}]
    assert ours().apply_chat_template(chat) == reference().apply_chat_template(
        chat, tokenize=False, add_generation_prompt=True
    )


def test_the_real_special_tokens_are_those_of_the_file() -> None:
    assert (ours().bos_token, ours().eos_token, ours().vocab_size) == ("<|im_start|>", "<|im_end|>", 49152)
    assert ours().special_token_ids == frozenset(range(17))


def pieces(tokenizer: Tokenizer, text: str) -> list[str]:
    return [str(tokenizer.piece(token)) for token in tokenizer.encode(text, add_special_tokens=False)]


@pytest.mark.parametrize(
    ("pre", "expected"),
    [("smollm", ["1", "2", "3"]), ("qwen2", ["1", "2", "3"]), ("llama-bpe", ["12", "3"])],
)
def test_digits_are_grouped_as_the_family_does(pre: str, expected: list[str]) -> None:
    assert pieces(tokenizer_from_gguf(gguf_metadata(pre)), "123") == expected


def test_qwen2_text_is_composed_first() -> None:
    assert pieces(tokenizer_from_gguf(gguf_metadata("qwen2")), "e\u0301") == ["Ã©"]
    assert pieces(tokenizer_from_gguf(gguf_metadata("smollm")), "e\u0301") == ["e", "Ì", "ģ"]


def test_llama_words_of_the_vocabulary_need_no_merges() -> None:
    vocab = [*BYTE_VOCAB, "xyz"]
    changes = {"tokens": vocab, "token_type": [1] * len(vocab)}
    assert pieces(tokenizer_from_gguf(gguf_metadata("llama-bpe", **changes)), "xyz") == ["xyz"]
    assert pieces(tokenizer_from_gguf(gguf_metadata("qwen2", **changes)), "xyz") == ["x", "y", "z"]


@pytest.mark.parametrize(
    ("pre", "flag", "expected"),
    [("smollm", None, False), ("smollm", True, True), ("llama-bpe", None, True), ("llama-bpe", False, False)],
)
def test_the_start_token_is_added_as_the_file_says(pre: str, flag: bool | None, expected: bool) -> None:
    changes = {} if flag is None else {"add_bos_token": flag}
    assert (tokenizer_from_gguf(gguf_metadata(pre, **changes)).encode("G") == [0, 40]) == expected


def test_the_end_token_is_added_where_the_file_says_so() -> None:
    assert tokenizer_from_gguf(gguf_metadata(add_eos_token=True)).encode("G") == [40, 1]


def test_user_defined_tokens_are_found_in_text_and_kept_when_decoding() -> None:
    tokenizer = tokenizer_from_gguf(gguf_metadata(token_type=[3, 4] + [1] * (len(BYTE_VOCAB) - 2)))
    assert tokenizer.encode("<|start|><|end|>") == [0, 1]
    assert tokenizer.decode([0, 1]) == "<|end|>"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "llama"}, "GGUF tokenizer model 'llama' is not supported; `gpt2` (byte-level BPE) is"),
        ({"model": None}, "GGUF tokenizer model None is not supported; `gpt2` (byte-level BPE) is"),
        (
            {"pre": "tekken"},
            "GGUF pre-tokenizer 'tekken' is not supported; these are: `llama-bpe`, `qwen2`, `smollm`",
        ),
        ({"tokens": None}, "the GGUF metadata has no list of strings `tokenizer.ggml.tokens`"),
        ({"merges": [1]}, "the GGUF metadata has no list of strings `tokenizer.ggml.merges`"),
        ({"merges": ["a b c"]}, "the GGUF merge 'a b c' does not join two tokens"),
        ({"tokens": ["a", "a"]}, "the GGUF vocabulary spells two tokens alike"),
        ({"token_type": [1]}, "the GGUF metadata gives no `tokenizer.ggml.token_type` for every token"),
        ({"eos_token_id": 999}, "`tokenizer.ggml.eos_token_id` is 999, which is no id of the 263 tokens"),
    ],
)
def test_metadata_that_makes_no_tokenizer_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(TokenizerError) as caught:
        tokenizer_from_gguf(gguf_metadata(**{"pre": "smollm", **changes}))
    assert caught.value.message == message


def test_merges_beyond_the_vocabulary_are_refused() -> None:
    with pytest.raises(TokenizerError) as caught:
        tokenizer_from_gguf(gguf_metadata(merges=["x y"]))
    assert caught.value.message.startswith("the GGUF vocabulary and merges do not fit together: ")
