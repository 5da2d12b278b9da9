"""Data from files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from offramp.errors import InvalidParameter
from offramp.models import load_model
from offramp.tune.samples import Sample
from offramp.tune.workshop import Workshop
from tests.tune.toys import END, quiet, toy_request


def samples(toy: Path, folder: Path, name: str, text: str, **changes: Any) -> list[Sample]:
    path = folder / name
    path.write_text(text)
    request = toy_request(toy, folder / "out", data=str(path), **changes)
    return Workshop(load_model(str(toy)), request, quiet).samples()


def lines(*records: Any) -> str:
    return "\n".join(json.dumps(record) for record in records)


def test_every_kind_of_record(toy: tuple[Path, Any], tmp_path: Path) -> None:
    chat = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes"}]
    records = lines(
        {"messages": chat},
        {"prompt": "abc", "completion": "de"},
        {"text": "wxyz"},
        "stu",
        {"token_ids": [3, 4, 5], "prompt_tokens": 2},
    )
    encode = load_model(str(toy[0])).tokenizer.encode
    prompt = encode("[user]hi|[assistant]")
    assert samples(toy[0], tmp_path, "data.jsonl", records) == [
        Sample((*prompt, *encode("yes"), END), len(prompt)),
        Sample((*encode("abc"), *encode("de"), END), 2),  # "ab" is one token
        Sample(tuple(encode("wxyz")), 1),
        Sample(tuple(encode("stu")), 1),
        Sample((3, 4, 5), 2),
    ]


def test_questions_without_answers_are_answered_by_the_model(toy: tuple[Path, Any], tmp_path: Path) -> None:
    open_ends = lines({"messages": [{"role": "user", "content": "hello"}]}, {"prompt": "abc"}, {"text": "xyz"})
    chat, plain, text = samples(toy[0], tmp_path, "data.jsonl", open_ends)
    tokenizer = load_model(str(toy[0])).tokenizer
    assert tokenizer.decode(chat.token_ids[: chat.prompt_tokens]) == "[user]hello|[assistant]"
    assert tokenizer.decode(plain.token_ids[: plain.prompt_tokens]) == "[user]abc|[assistant]"
    assert len(chat.scored) > 1 and len(plain.scored) > 1
    assert tokenizer.decode(text.token_ids) == "xyz"


def test_text_is_cut_into_pieces(toy: tuple[Path, Any], tmp_path: Path) -> None:
    made = samples(toy[0], tmp_path, "data.txt", "c" * 25, max_answer_tokens=10)
    assert [(len(s.token_ids), s.prompt_tokens) for s in made] == [(10, 1), (10, 1), (5, 1)]


REFUSED = [
    ("not json", "line 1 of `{}` is not JSON"),
    (lines({"question": "x"}), "line 1 of `{}` is no record"),
    (lines({"text": "ok"}, 7), "line 2 of `{}` is no record"),
    (lines({"prompt": "x", "completion": 3}), "`completion` in line 1 of `{}` must be a string"),
    (lines({"token_ids": [1, 999], "prompt_tokens": 1}), "line 1 of `{}` must list token ids below 258"),
    (lines({"messages": []}), "`messages` must be a non-empty list"),
    ("", "there are no data"),
]


@pytest.mark.parametrize(("text", "message"), REFUSED)
def test_what_is_no_record_is_refused(toy: tuple[Path, Any], tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InvalidParameter) as error:
        samples(toy[0], tmp_path, "data.jsonl", text)
    assert error.value.message.startswith(message.format(tmp_path / "data.jsonl"))


def test_a_file_that_is_not_there_is_refused(toy: tuple[Path, Any], tmp_path: Path) -> None:
    request = toy_request(toy[0], tmp_path, data=str(tmp_path / "none.txt"))
    with pytest.raises(InvalidParameter, match="cannot be read"):
        Workshop(load_model(str(toy[0])), request, quiet).samples()
