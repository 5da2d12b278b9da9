"""Streamed text is the text of all the tokens, and never holds half a character."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Backend

from offramp.tokenizer import Detokenizer, Tokenizer
from tests.tokenizer.toys import BYTE_VOCAB, byte_fallback, byte_level, unigram

BACKENDS: list[Callable[[], Backend]] = [byte_level, byte_fallback, unigram]
TOKENIZERS = {make.__name__: Tokenizer(make()) for make in BACKENDS}
KINDS = pytest.mark.parametrize("tokenizer", TOKENIZERS.values(), ids=TOKENIZERS.keys())


def stream(tokenizer: Tokenizer, ids: list[int], skip: bool = True, after: Sequence[int] = ()) -> list[str]:
    detokenizer = Detokenizer(tokenizer, skip, after)
    return [*(detokenizer.push(token) for token in ids), detokenizer.finish()]


@KINDS
@given(text=st.text())
@example(text="  a  the 😀 é\u0301 日本")
def test_streaming_any_text_gives_it_back(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    assert "".join(stream(tokenizer, ids)) == tokenizer.decode(ids)


@KINDS
@settings(max_examples=300)
@given(ids=st.lists(st.integers(0, 300)), skip=st.booleans())
def test_streaming_any_tokens_equals_decoding_them(tokenizer: Tokenizer, ids: list[int], skip: bool) -> None:
    assert "".join(stream(tokenizer, ids, skip)) == tokenizer.decode(ids, skip_special_tokens=skip)


@KINDS
@given(text=st.text(st.characters(exclude_characters="\ufffd", exclude_categories=["Cs"])))
def test_no_half_character_is_ever_emitted(tokenizer: Tokenizer, text: str) -> None:
    assert "\ufffd" not in "".join(stream(tokenizer, tokenizer.encode(text)))


def test_a_character_comes_with_its_last_byte() -> None:
    tokenizer = TOKENIZERS["byte_level"]
    assert stream(tokenizer, tokenizer.encode("a😀b")) == ["a", "", "", "", "😀", "b", ""]


def test_byte_fallback_comes_with_the_token_after_it() -> None:
    tokenizer = TOKENIZERS["byte_fallback"]
    assert stream(tokenizer, tokenizer.encode("a日b")) == ["a", "", "", "", "日b", ""]


def test_a_word_comes_with_its_space_but_for_the_first() -> None:
    tokenizer = TOKENIZERS["unigram"]
    assert stream(tokenizer, tokenizer.encode("the a bé")) == ["the", " a", " b", "é", "", ""]


@KINDS
@given(text=st.text(), cut=st.integers(0, 20))
@example(text="the  a 日本 bé", cut=1)
@example(text="a0 a", cut=2)
def test_behind_other_tokens_it_is_what_they_have_more_together(tokenizer: Tokenizer, text: str, cut: int) -> None:
    ids = tokenizer.encode(text)
    before = tokenizer.decode(ids[:cut])
    if not before.endswith("\ufffd"):
        assert before + "".join(stream(tokenizer, ids[cut:], after=ids[:cut])) == tokenizer.decode(ids)


def test_the_first_word_keeps_its_space_behind_a_prompt() -> None:
    tokenizer = TOKENIZERS["unigram"]
    the, a = tokenizer.encode("the a bé")[:2]
    assert stream(tokenizer, [a], after=[the]) == [" a", ""] and stream(tokenizer, [a]) == ["a", ""]


def test_text_is_emitted_without_delay() -> None:
    tokenizer = TOKENIZERS["byte_level"]
    ids = [BYTE_VOCAB.index(piece) for piece in ("Ġthe", "12", "Ã©")]
    assert stream(tokenizer, ids) == [" the", "12", "é", ""]


def test_an_unfinished_character_is_given_up_at_the_end() -> None:
    tokenizer = TOKENIZERS["byte_level"]
    assert stream(tokenizer, tokenizer.encode("é日")[:-1]) == ["é", "", "", "\ufffd"]


@KINDS
def test_a_window_of_one_token_is_kept(tokenizer: Tokenizer) -> None:
    detokenizer = Detokenizer(tokenizer)
    for token in tokenizer.encode("abc " * 50):
        detokenizer.push(token)
        assert len(detokenizer._window) <= 1
