"""Sets to evaluate on: how a line becomes a case, and how an output is graded."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from offramp.evaluate.tasks import TASKS, Case, first_letter, last_number, read_cases
from offramp.llm import LLM

LINES: dict[str, Any] = {
    "mtbench": {"turns": ["Say hi.", "Again."]},
    "gsm8k": {"prompt": "1 + 1?", "expected": "2"},
    "hellaswag": {"ctx": "He", "endings": ["sat.", "flew.", "sang."], "expected_index": 1},
    "truthfulqa": {"question": "Is it so?", "choices": ["Yes.", "No.", "Both.", "Who?"], "expected_index": 0},
}
EXPECTED = {
    "mtbench": ("[user] Say hi.\n", None),
    "gsm8k": ("[user] 1 + 1?\n\nEnd with the answer as a number.\n", "2"),
    "hellaswag": (
        "[user] Which ending fits best?\n\nHe\n\nA. sat.\nB. flew.\nC. sang.\n\nAnswer with one letter.\n",
        "B",
    ),
    "truthfulqa": ("[user] Is it so?\n\nA. No.\nB. Both.\nC. Who?\nD. Yes.\n\nAnswer with one letter.\n", "D"),
}


@pytest.mark.parametrize("name", TASKS)
def test_a_line_becomes_a_prompt_with_its_answer(
    name: str, llm: LLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "cases.jsonl"
    path.write_text((json.dumps(LINES[name]) + "\n") * 3)
    monkeypatch.setattr("offramp.evaluate.tasks.pull", lambda source, progress: path)
    cases = read_cases([name], llm.tokenizer, 2)
    text, answer = EXPECTED[name]
    assert cases == [Case(name, tuple(llm.tokenizer.encode(text)), answer, TASKS[name].judge)] * 2


@pytest.mark.parametrize("name", TASKS)
def test_a_set_in_the_cache_is_used_as_it_is(name: str, llm: LLM, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By checksum, as models are; here of a file that stands in for the real one."""
    content = (json.dumps(LINES[name]) + "\n").encode()
    source = TASKS[name].source
    file = source.file._replace(sha256=hashlib.sha256(content).hexdigest(), size=len(content))
    monkeypatch.setitem(TASKS, name, replace(TASKS[name], source=source._replace(file=file)))
    cache.mkdir(exist_ok=True)
    (cache / file.name).write_bytes(content)
    assert [case.answer for case in read_cases([name], llm.tokenizer, None)] == [EXPECTED[name][1]]


def test_a_file_is_a_set_without_answers(llm: LLM, data: Path) -> None:
    cases = read_cases([str(data)], llm.tokenizer, 5)
    assert [(case.task, case.answer) for case in cases] == [("prompts.txt", None)] * 5


@pytest.mark.parametrize(
    ("answer", "text", "right"),
    [
        ("18", "so 20 - 2 = 18.", True),
        ("18", "#### 18", True),
        ("1,800", "It is $1800.00.", True),
        ("-3", "x = -3", True),
        ("18", "18 or 20", False),
        ("18", "eighteen", False),
        ("B", "B.", True),
        ("B", "The answer is B, not C", True),
        ("B", "C or B", False),
        ("B", "Beta", False),
    ],
)
def test_an_output_is_right_by_its_last_number_or_its_first_letter(answer: str, text: str, right: bool) -> None:
    judge = first_letter if answer.isalpha() else last_number
    assert Case("x", (1,), answer, judge).is_right(text) is right


def test_without_an_answer_nothing_is_right_or_wrong() -> None:
    assert Case("x", (1,)).is_right("18") is None


def test_the_completions_of_a_file_are_its_answers(llm: LLM, tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text('{"prompt": "1 + 1 =", "completion": " 2"}\n{"prompt": "hi"}\n')
    pair, turn = read_cases([str(path)], llm.tokenizer, None)
    assert pair == Case("pairs.jsonl", tuple(llm.tokenizer.encode("1 + 1 =")), " 2") and turn.answer is None
    assert pair.is_right("2\n") and not pair.is_right("is 2")
