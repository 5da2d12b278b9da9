"""Prompts from files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from offramp.calibrate.prompts import Prompt, choose_prompts, held_out_prompts, read_prompts
from offramp.errors import InvalidParameter
from offramp.llm import LLM
from offramp.tune.samples import Corpus, Sample

TURN = {"role": "user", "content": "hi"}


def read_line(line: str, tmp_path: Path, llm: LLM) -> Any:
    path = tmp_path / "data.jsonl"
    path.write_text(line + "\n")
    (prompt,) = read_prompts([path], llm.tokenizer)
    return prompt.tokens


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("hi", "[user] hi\n"),
        ({"prompt": "hi"}, "[user] hi\n"),
        ({"prompt": "hi", "completion": "no"}, "hi"),
        ({"prompt": "hi", "completion": None}, "[user] hi\n"),
        ({"messages": [TURN]}, "[user] hi\n"),
        ({"messages": [TURN, {"role": "assistant", "content": "x"}]}, "[user] hi\n"),
        ({"messages": [{"role": "system", "content": "be"}, TURN]}, "[system] be\n[user] hi\n"),
        ({"text": "hi"}, "hi"),
        ({"source": "hi", "target": "no"}, "hi"),
    ],
)
def test_every_form_becomes_tokens(value: Any, text: str, tmp_path: Path, llm: LLM) -> None:
    assert read_line(json.dumps(value), tmp_path, llm) == tuple(llm.tokenizer.encode(text))


def test_tokens_are_taken_as_they_are(tmp_path: Path, llm: LLM) -> None:
    assert read_line('{"token_ids": [5, 6, 7, 8], "prompt_tokens": 3}', tmp_path, llm) == (5, 6, 7)


def test_a_completion_is_kept_as_it_is(tmp_path: Path, llm: LLM) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text('{"prompt": "1 + 1 =", "completion": " 2\\n"}\n"hi"\n{"source": "1 + 1 =", "target": " 2\\n"}\n')
    first, other, last = read_prompts([path], llm.tokenizer)
    assert (first.completion, other.completion) == (" 2\n", None) and last == first


def test_each_line_of_a_text_is_a_turn(tmp_path: Path, llm: LLM) -> None:
    path = tmp_path / "data.txt"
    path.write_text('one\n\n"two"\n')
    expected = [Prompt(tuple(llm.tokenizer.encode(f"[user] {text}\n"))) for text in ("one", '"two"')]
    assert read_prompts([path], llm.tokenizer) == expected


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 1 of `{}` is not JSON: "),
        ("3", "line 1 of `{}` is no prompt\nhint: a line is "),
        ('{"token_ids": [1, "a"], "prompt_tokens": 2}', "line 1 of `{}` is no prompt\n"),
        ('{"token_ids": [1], "prompt_tokens": 2}', "line 1 of `{}` is no prompt\n"),
        ('{"prompt": "a", "completion": 2}', "`completion` in line 1 of `{}` must be a string\n"),
        ('{"messages": []}', "`messages` must be a non-empty list"),
    ],
)
def test_what_is_no_prompt_is_refused(line: str, message: str, tmp_path: Path, llm: LLM) -> None:
    with pytest.raises(InvalidParameter) as error:
        read_line(line, tmp_path, llm)
    assert str(error.value).startswith(message.replace("{}", str(tmp_path / "data.jsonl")))


def test_self_is_what_tuning_held_out(tmp_path: Path) -> None:
    with pytest.raises(InvalidParameter, match=r"which `--data self` reads\nhint: give `--data FILE`$"):
        held_out_prompts(tmp_path)
    corpus = Corpus(tmp_path / "work", {})
    for i in range(200):
        corpus.append([Sample((i, i + 1, i + 2), 2)], i)
    expected = [Prompt(sample.token_ids[:2]) for sample in corpus.samples if sample.held_out]
    again = next(s for i in range(200) if not (s := Sample((*expected[0].tokens, i), 2)).held_out)
    corpus.append([again], 200)
    with corpus.path.open("a") as file:
        file.write('{"token_ids": [1')
    assert held_out_prompts(tmp_path) == expected[1:] and 0 < len(expected) < 40


def test_chosen_prompts_are_different_short_enough_and_in_no_order_of_theirs() -> None:
    prompts = [Prompt((i,) * (1 + i % 3), str(i)) for i in range(60)] * 2
    chosen = choose_prompts(prompts, 30, 2)
    assert len(chosen) == len(set(chosen)) == 30 and max(len(prompt.tokens) for prompt in chosen) == 2
    assert choose_prompts(reversed(prompts), 30, 2) == chosen and chosen != sorted(chosen)


def test_of_the_same_tokens_the_first_prompt_is_chosen() -> None:
    assert choose_prompts([Prompt((1,), "a"), Prompt((1,), "b")], 2, 1) == [Prompt((1,), "a")]
