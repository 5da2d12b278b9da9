"""A tokenizer from a folder encodes as Transformers does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer, PreTrainedTokenizerFast, T5Tokenizer

from offramp.errors import InvalidParameter, TokenizerError
from offramp.tokenizer import Tokenizer, tokenizer_from_folder
from tests.tokenizer.toys import UNIGRAM, byte_fallback, byte_level


def save(folder: Path, template: str | None = None, **config: Any) -> Path:
    backend = byte_level()
    if template is not None:
        backend.post_processor = TemplateProcessing(single=template, special_tokens=[("<|start|>", 0), ("<|end|>", 1)])
    backend.save(str(folder / "tokenizer.json"))
    if config:
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


def test_a_saved_tokenizer_encodes_and_decodes_as_transformers(tmp_path: Path) -> None:
    save(tmp_path, "<|start|> $A <|end|>")
    cast(Any, PreTrainedTokenizerFast)(
        tokenizer_file=str(tmp_path / "tokenizer.json"), bos_token="<|start|>", eos_token="<|end|>"
    ).save_pretrained(tmp_path)
    reference, ours = AutoTokenizer.from_pretrained(tmp_path), tokenizer_from_folder(tmp_path)
    text = " the 12 é <|end|>x"
    for special in (True, False):
        assert ours.encode(text, add_special_tokens=special) == reference.encode(text, add_special_tokens=special)
        ids = reference.encode(text)
        assert ours.decode(ids, special) == reference.decode(ids, skip_special_tokens=special)
    assert (ours.bos_token_id, ours.eos_token_id, ours.vocab_size) == (0, 1, len(reference))


@pytest.mark.parametrize("text", ["the cab. ", "  a  b", "<extra_id_0> the</s> é", "日x", ""])
def test_a_t5_tokenizer_encodes_and_decodes_as_transformers(tmp_path: Path, text: str) -> None:
    cast(Any, T5Tokenizer)(vocab=UNIGRAM, extra_ids=2).save_pretrained(tmp_path)
    reference, ours = AutoTokenizer.from_pretrained(tmp_path), tokenizer_from_folder(tmp_path)
    for special in (True, False):
        assert ours.encode(text, add_special_tokens=special) == reference.encode(text, add_special_tokens=special)
        ids = reference.encode(text)
        assert ours.decode(ids, special) == reference.decode(ids, skip_special_tokens=special)
    assert ours.encode(text)[-1] == ours.eos_token_id == 1
    assert (ours.bos_token_id, ours.vocab_size, len(ours.special_token_ids)) == (None, len(UNIGRAM), 5)


@pytest.mark.parametrize("template", ["$A", "<|start|> $A", "$A <|end|>", "<|start|> $A <|end|>"])
@pytest.mark.parametrize(
    "flags", [{}, {"add_bos_token": True}, {"add_bos_token": False, "add_eos_token": True}], ids=str
)
def test_special_tokens_are_added_as_transformers_adds_them(
    tmp_path: Path, template: str, flags: dict[str, bool]
) -> None:
    save(tmp_path, template, bos_token="<|start|>", eos_token="<|end|>", **flags)
    assert tokenizer_from_folder(tmp_path).encode("G") == AutoTokenizer.from_pretrained(tmp_path).encode("G")


def test_special_tokens_are_left_out_on_demand(tmp_path: Path) -> None:
    assert tokenizer_from_folder(save(tmp_path, "<|start|> $A <|end|>")).encode("G", add_special_tokens=False) == [40]


def test_a_special_token_may_be_an_object(tmp_path: Path) -> None:
    assert tokenizer_from_folder(save(tmp_path, eos_token={"content": "<|end|>"})).eos_token_id == 1


@pytest.mark.parametrize("value", ["T", [{"name": "tool_use", "template": "x"}, {"name": "default", "template": "T"}]])
def test_the_chat_template_of_the_configuration_is_read(tmp_path: Path, value: Any) -> None:
    tokenizer = tokenizer_from_folder(save(tmp_path, chat_template=value))
    assert tokenizer.apply_chat_template([{"role": "user", "content": "a"}]) == "T"


def test_a_template_file_comes_first(tmp_path: Path) -> None:
    (tmp_path / "chat_template.jinja").write_text("file")
    tokenizer = tokenizer_from_folder(save(tmp_path, chat_template="configuration"))
    assert tokenizer.apply_chat_template([{"role": "user", "content": "a"}]) == "file"


def test_saved_truncation_is_ignored(tmp_path: Path) -> None:
    backend = byte_level()
    backend.enable_truncation(2)
    backend.save(str(tmp_path / "tokenizer.json"))
    assert len(tokenizer_from_folder(tmp_path).encode("abcdef")) == 6


@given(text=st.text())
def test_bytes_of_byte_level_tokens_are_the_text(text: str) -> None:
    tokenizer = Tokenizer(byte_level())
    ids = tokenizer.encode(text)
    assert b"".join(tokenizer.token_bytes(token) for token in ids) == text.encode()


def test_bytes_of_sentencepiece_tokens_have_spaces_and_single_bytes() -> None:
    tokenizer = Tokenizer(byte_fallback())
    assert b"".join(tokenizer.token_bytes(token) for token in tokenizer.encode("a 日")) == " a 日".encode()


def test_an_id_beyond_the_vocabulary_is_no_text() -> None:
    tokenizer = Tokenizer(byte_level())
    assert (tokenizer.piece(9999), tokenizer.token_bytes(9999), tokenizer.decode([40, 9999])) == (None, b"", "G")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError) as caught:
        tokenizer_from_folder(tmp_path)
    assert caught.value.message == f"`{tmp_path}` has no tokenizer: looked for `tokenizer.json`"
    assert caught.value.hint == (
        "save a fast tokenizer there with `AutoTokenizer.from_pretrained(...).save_pretrained(folder)`"
    )


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text("{")
    with pytest.raises(TokenizerError) as caught:
        tokenizer_from_folder(tmp_path)
    assert caught.value.message.startswith(f"`{path}` is not a tokenizer: ")


@pytest.mark.parametrize(("text", "problem"), [("{", "is not JSON"), ("[]", "is not a JSON object")])
def test_a_broken_configuration_is_named(tmp_path: Path, text: str, problem: str) -> None:
    path = save(tmp_path) / "tokenizer_config.json"
    path.write_text(text)
    with pytest.raises(TokenizerError) as caught:
        tokenizer_from_folder(tmp_path)
    assert caught.value.message == f"`{path}` {problem}"


def test_a_template_file_that_is_not_text_is_named(tmp_path: Path) -> None:
    path = save(tmp_path) / "chat_template.jinja"
    path.write_bytes(b"\xff")
    with pytest.raises(TokenizerError) as caught:
        tokenizer_from_folder(tmp_path)
    assert caught.value.message == f"`{path}` is not UTF-8"


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"eos_token": 3}, "`eos_token` in tokenizer_config.json must be a string, not 3"),
        ({"eos_token": "<none>"}, "special token `<none>` is not in the vocabulary"),
        (
            {"chat_template": 3},
            "`chat_template` in tokenizer_config.json must be a string or a list of named templates",
        ),
    ],
)
def test_wrong_values_are_named(tmp_path: Path, config: dict[str, Any], message: str) -> None:
    with pytest.raises(TokenizerError) as caught:
        tokenizer_from_folder(save(tmp_path, **config))
    assert caught.value.message == message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (3, "the text to encode must be a string, not int"),
        ("\ud800", "the text to encode holds half of a surrogate pair"),
    ],
)
def test_what_is_no_text_is_refused(text: Any, message: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        Tokenizer(byte_level()).encode(text)
    assert (caught.value.message, caught.value.param) == (message, "text")
