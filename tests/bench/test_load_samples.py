"""What is asked: made-up prompts, files, and what is wrong with some."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from offramp.bench.load.bodies import Form
from offramp.bench.load.samples import Dataset, Sample, draw
from offramp.errors import InvalidParameter
from offramp.serve.fake_output import byte_tokenizer

TOKENIZER = byte_tokenizer()


def lines(folder: Path, *values: Any, name: str = "prompts.jsonl") -> Path:
    path = folder / name
    path.write_text("\n".join(json.dumps(value) for value in values) + "\n")
    return path


def test_made_up_prompts_have_the_length_asked_for_and_are_different() -> None:
    samples = draw(Dataset(count=20, input_len=30, output_len=7, prefix_len=5), TOKENIZER)
    assert {sample.output_tokens for sample in samples} == {7}
    assert all(sample.prompt_tokens == len(TOKENIZER.encode(str(sample.prompt), False)) for sample in samples)
    assert [s.prompt_tokens for s in samples].count(35) >= 10, "bytes that are no text cannot always be corrected"
    assert len({sample.prompt for sample in samples}) > 1
    assert samples == draw(Dataset(count=20, input_len=30, output_len=7, prefix_len=5), TOKENIZER)


def test_lengths_that_differ_stay_within_their_range() -> None:
    samples = draw(Dataset(count=50, input_len=20, output_len=10, range_ratio=0.5), TOKENIZER)
    assert {sample.output_tokens for sample in samples} <= set(range(5, 16))
    assert len({sample.output_tokens for sample in samples}) > 3


def test_a_file_of_prompts(tmp_path: Path) -> None:
    path = lines(tmp_path, {"prompt": "one"}, {"prompt": "two"})
    plain = draw(Dataset("custom", path, 5, template=False, shuffle=False, output_len=9), TOKENIZER)
    assert [sample.prompt for sample in plain[:2]] == ["one", "two"]
    assert len(plain) == 5 and plain[0] == Sample("one", 3, 9)
    assert len(draw(Dataset("custom", path, 5, oversample=False), TOKENIZER)) == 2
    templated = draw(Dataset("custom", path, 1, shuffle=False), TOKENIZER)
    assert templated[0].prompt == TOKENIZER.apply_chat_template([{"role": "user", "content": "one"}])


def test_conversations_are_chosen_by_length(tmp_path: Path) -> None:
    def turns(*texts: str) -> dict[str, Any]:
        return {"conversations": [{"value": text} for text in texts]}

    path = tmp_path / "chats.json"
    kept = turns("a question", "an answer", "more")
    path.write_text(json.dumps([turns("alone"), turns("a", "too short a prompt"), turns("x" * 1025, "long"), kept]))
    samples = draw(Dataset("sharegpt", path, 1), TOKENIZER)
    assert samples == [Sample("a question", 10, 9)]


@pytest.mark.parametrize("value", [{"text": "no prompt"}, ["a"], {"prompt": 1}])
def test_files_that_are_no_dataset(tmp_path: Path, value: Any) -> None:
    with pytest.raises(InvalidParameter, match="no dataset of the form `custom`"):
        draw(Dataset("custom", lines(tmp_path, value)), TOKENIZER)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InvalidParameter, match="cannot be read"):
        draw(Dataset("custom", tmp_path / "none"), TOKENIZER)
    with pytest.raises(InvalidParameter, match="has no prompts"):
        draw(Dataset("custom", lines(tmp_path)), TOKENIZER)


def test_prompts_that_need_a_tokenizer() -> None:
    with pytest.raises(InvalidParameter, match="there is no tokenizer"):
        draw(Dataset(count=1), None)


@pytest.mark.parametrize(
    "given", [{"count": 0}, {"range_ratio": 1.0}, {"output_len": 0}, {"name": "custom"}, {"path": Path("x")}]
)
def test_datasets_that_make_no_sense(given: Any) -> None:
    with pytest.raises(InvalidParameter):
        Dataset(**given)


def test_bodies_of_both_kinds() -> None:
    sample = Sample("hi", 2, 5)
    plain = Form("openai", "m", ignore_eos=True, extra={"exit": "off"}).body(sample)
    assert (plain["prompt"], plain["max_tokens"], plain["ignore_eos"], plain["exit"]) == ("hi", 5, True, "off")
    chat = Form("openai-chat", "m").body(sample)
    assert chat["messages"] == [{"role": "user", "content": "hi"}]
    assert chat["max_completion_tokens"] == 5 and "ignore_eos" not in chat
    with pytest.raises(InvalidParameter):
        Form("openai", "m", extra={"stream": False})
