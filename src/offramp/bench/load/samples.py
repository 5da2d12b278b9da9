"""What is asked of a server: made-up prompts, prompts of a file, or a set that `offramp eval` knows."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from offramp.errors import InvalidParameter
from offramp.evaluate.tasks import TASKS
from offramp.models import Progress, pull
from offramp.tokenizer import Tokenizer
from offramp.types.checks import check_integer, check_number

FILES = ("custom", "sharegpt")
NAMES = ("random", *FILES, *TASKS)

SHORTEST, LONGEST_PROMPT, LONGEST = 4, 1024, 2048
"""Conversations of `sharegpt` are left out where prompt or answer has fewer tokens, or the prompt, or both together,
have more. As `vllm bench serve` has it."""

OUTPUT_TOKENS = 256
"""Of prompts that say nothing about it."""


@dataclass(frozen=True, slots=True)
class Sample:
    """A prompt (text, or token ids), how many tokens it has (None where nobody can tell), and how many to generate."""

    prompt: str | list[int]
    prompt_tokens: int | None
    output_tokens: int


@dataclass(frozen=True, slots=True)
class Dataset:
    """Which prompts, and how many.

    Args:
        name: one of `NAMES`.
        path: the file of one of `FILES`.
        count: prompts.
        seed: of everything that is drawn.
        input_len, range_ratio, prefix_len: of made-up prompts: tokens, by what share their number may differ, and how
            many more, the same for all, stand before.
        output_len: tokens to generate; None is 128 for made-up prompts, what the file says for `sharegpt`, else 256.
        template: put prompts of `custom` and of sets into the model's chat template.
        shuffle: draw the order of a file's prompts.
        oversample: repeat prompts where there are too few.
    """

    name: str = "random"
    path: Path | None = None
    count: int = 1000
    seed: int = 0
    input_len: int = 1024
    range_ratio: float = 0.0
    prefix_len: int = 0
    output_len: int | None = None
    template: bool = True
    shuffle: bool = True
    oversample: bool = True

    def __post_init__(self) -> None:
        check_integer("num_prompts", self.count, 1)
        check_integer("seed", self.seed, 0)
        check_integer("random_prefix_len", self.prefix_len, 0)
        check_integer("random_input_len", self.input_len, 0 if self.prefix_len else 1)
        if self.output_len is not None:
            check_integer("output_len", self.output_len, 1)
        check_number("random_range_ratio", self.range_ratio, 0, 0.999)
        if (self.name in FILES) != (self.path is not None):
            has = "has no" if self.path is not None else "needs a"
            raise InvalidParameter(
                f"the dataset `{self.name}` {has} `--dataset-path`",
                param="dataset_path",
                hint="`--dataset-name custom` reads a file of prompts, `sharegpt` one of conversations",
            )


def draw(dataset: Dataset, tokenizer: Tokenizer | None, progress: Progress | None = None) -> list[Sample]:
    """The samples of a dataset.

    Raises:
        InvalidParameter: a file that cannot be read, or that has no prompts; a dataset that needs a tokenizer.
        OfframpError: a set that cannot be had.
    """
    if dataset.name == "random":
        from offramp.bench.load.made_up import made_up

        sizes = dataset.count, dataset.input_len, dataset.output_len or 128
        tokens = _needed(tokenizer, "made-up prompts are made of tokens")
        return [Sample(*one) for one in made_up(tokens, *sizes, dataset.prefix_len, dataset.range_ratio, dataset.seed)]
    chance = random.Random(dataset.seed)
    lines = list(_lines(dataset, progress))
    if dataset.shuffle:
        chance.shuffle(lines)
    made: list[Sample] = []
    for line in lines:
        sample = _conversation(line, dataset, tokenizer) if dataset.name == "sharegpt" else None
        if dataset.name != "sharegpt":
            sample = _turn(line, dataset, tokenizer)
        if sample is not None:
            made.append(sample)
        if len(made) == dataset.count:
            break
    if not made:
        raise InvalidParameter(f"the dataset `{dataset.path or dataset.name}` has no prompts", param="dataset_path")
    if dataset.oversample:
        made += chance.choices(made, k=dataset.count - len(made))
    return made


def _needed(tokenizer: Tokenizer | None, why: str) -> Tokenizer:
    if tokenizer is None:
        raise InvalidParameter(
            f"there is no tokenizer, and {why}",
            param="tokenizer",
            hint="`--tokenizer MODEL` names one: an alias, a folder, a `.gguf` file or a hub id",
        )
    return tokenizer


def _turn(line: Any, dataset: Dataset, tokenizer: Tokenizer | None) -> Sample:
    prompt = line["prompt"]
    if dataset.template:
        turns = [{"role": "user", "content": prompt}]
        prompt = _needed(tokenizer, "prompts are to be put into its chat template").apply_chat_template(turns)
    return Sample(prompt, _count(prompt, tokenizer), dataset.output_len or OUTPUT_TOKENS)


def _conversation(line: Any, dataset: Dataset, tokenizer: Tokenizer | None) -> Sample | None:
    """The first turn of a conversation, with as many tokens to generate as the second has; None if it is left out."""
    prompt, answer = (turn["value"] for turn in line["conversations"][:2])
    tokens = _needed(tokenizer, "conversations are chosen by their lengths in tokens")
    read, said = (len(tokens.encode(text, add_special_tokens=False)) for text in (prompt, answer))
    output = dataset.output_len or said
    enough = read >= SHORTEST and (dataset.output_len is not None or said >= SHORTEST)
    fits = enough and read <= LONGEST_PROMPT and read + output <= LONGEST
    return Sample(prompt, read, output) if fits else None


def _count(prompt: str, tokenizer: Tokenizer | None) -> int | None:
    return None if tokenizer is None else len(tokenizer.encode(prompt, add_special_tokens=False))


def _lines(dataset: Dataset, progress: Progress | None) -> Iterator[Any]:
    """What stands for each prompt in a file or a set.

    Raises:
        InvalidParameter: the file cannot be read.
    """
    if dataset.name in TASKS:
        task = TASKS[dataset.name]
        for line in pull(task.source, progress).read_text(encoding="utf-8").splitlines():
            yield {"prompt": task.read(json.loads(line))[0]}
        return
    assert dataset.path is not None
    try:
        text = dataset.path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidParameter(f"`{dataset.path}` cannot be read: {error}", param="dataset_path") from error
    try:
        if dataset.name == "sharegpt":
            whole = [one for one in json.loads(text) if len(one.get("conversations", ())) >= 2]
            assert all(isinstance(turn["value"], str) for one in whole for turn in one["conversations"][:2])
        else:
            whole = [json.loads(line) for line in text.splitlines() if line.strip()]
            assert all(isinstance(one["prompt"], str) for one in whole)
    except (ValueError, TypeError, KeyError, AttributeError, AssertionError):
        form = 'a line is {"prompt": "..."}'
        if dataset.name == "sharegpt":
            form = 'it is [{"conversations": [{"value": "..."}, {"value": "..."}]}]'
        raise InvalidParameter(
            f"`{dataset.path}` is no dataset of the form `{dataset.name}`", param="dataset_path", hint=form
        ) from None
    yield from whole
