"""Prompts to calibrate and evaluate on, as token ids.

A file ending in `.jsonl` has one prompt a line, in any of these forms; any other file is text, each line a user's turn.

    {"token_ids": [...], "prompt_tokens": n}    the first n tokens, as they are
    {"messages": [...]}                         a conversation, up to its last turn that is not the assistant's
    {"prompt": "..."}, "..."                    a user's turn
    {"text": "..."}                             text to go on from, without the chat template
    {"prompt": "...", "completion": "..."}      likewise the prompt, of which the completion is the right answer
    {"source": "...", "target": "..."}          the same, as the recipe `calm` has it
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from offramp.calibrate.results import digest
from offramp.errors import InvalidParameter
from offramp.tokenizer import Tokenizer
from offramp.tune.samples import read_sample

FORMS = (
    'a line is {"prompt": "..."}, {"prompt": "...", "completion": "..."}, {"messages": [...]}, {"text": "..."} or '
    '{"token_ids": [...], "prompt_tokens": n}'
)

Tokens = tuple[int, ...]


class Prompt(NamedTuple):
    """A prompt, and the right answer where it is known."""

    tokens: Tokens
    completion: str | None = None


def read_prompts(files: Iterable[Path], tokenizer: Tokenizer) -> list[Prompt]:
    """The prompts of some files, in their order.

    Raises:
        InvalidParameter: a file that cannot be read, or a line that is no prompt, with its number.
    """
    prompts = []
    for path in files:
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidParameter(f"`{path}` cannot be read: {error}", param="data") from error
        lines = [(number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]
        for number, line in lines:
            where = f"line {number} of `{path}`"
            prompts.append(_prompt(_json(line, where) if path.suffix == ".jsonl" else line, where, tokenizer))
    return prompts


def held_out_prompts(pack: Path) -> list[Prompt]:
    """Prompts that `offramp tune` held out while it made a pack, from the pack's work folder; none that it trained on
    with another answer.

    Raises:
        InvalidParameter: there is no work folder.
    """
    path = pack / "work" / "data.jsonl"
    if not path.is_file():
        raise InvalidParameter(
            f"there is no `{path}`, which `--data self` reads", param="data", hint="give `--data FILE`"
        )
    whole, _, _ = path.read_bytes().rpartition(b"\n")
    samples = [read_sample(json.loads(line)) for line in whole.splitlines()]
    prompts = [(sample.token_ids[: sample.prompt_tokens], sample.held_out) for sample in samples]
    trained = {tokens for tokens, held_out in prompts if not held_out}
    return [Prompt(tokens) for tokens, held_out in prompts if held_out and tokens not in trained]


def choose_prompts(prompts: Iterable[Prompt], count: int, longest: int) -> list[Prompt]:
    """At most `count` different prompts of at most `longest` tokens; of the same tokens the first that comes.

    Their order looks random and does not depend on the order they came in, so that any part of them is a sample.
    """
    different: dict[Tokens, Prompt] = {}
    for prompt in prompts:
        if 0 < len(prompt.tokens) <= longest:
            different.setdefault(prompt.tokens, prompt)
    return sorted(different.values(), key=lambda prompt: digest(prompt.tokens))[:count]


def user_turn(text: str, tokenizer: Tokenizer) -> list[int]:
    """A user's turn through the chat template; plain text where the model has none."""
    if not tokenizer.has_chat_template:
        return tokenizer.encode(text)
    return conversation([{"role": "user", "content": text}], tokenizer)


def conversation(messages: Sequence[Any], tokenizer: Tokenizer) -> list[int]:
    """A conversation through the chat template, ready for the assistant's turn."""
    return tokenizer.encode(tokenizer.apply_chat_template(messages), add_special_tokens=False)


def _prompt(value: Any, where: str, tokenizer: Tokenizer) -> Prompt:
    if isinstance(value, dict) and {"source", "target"} <= value.keys():
        value = {"prompt": value["source"], "completion": value["target"]}
    completion = value.get("completion") if isinstance(value, dict) and "prompt" in value else None
    if not isinstance(completion, str | None):
        raise InvalidParameter(f"`completion` in {where} must be a string", param="data", hint=FORMS)
    return Prompt(tuple(_tokens(value, where, tokenizer)), completion)


def _tokens(value: Any, where: str, tokenizer: Tokenizer) -> list[int]:
    values = value if isinstance(value, dict) else {"prompt": value}
    tokens, count = values.get("token_ids"), values.get("prompt_tokens")
    if isinstance(tokens, list) and type(count) is int and 0 < count <= len(tokens):
        if all(type(token) is int for token in tokens):
            return tokens[:count]
    elif isinstance(values.get("messages"), list):
        turns = values["messages"]
        while turns and isinstance(turns[-1], dict) and turns[-1].get("role") == "assistant":
            turns = turns[:-1]
        return conversation(turns, tokenizer)
    elif isinstance(values.get("prompt"), str):
        if values.get("completion") is not None:
            return tokenizer.encode(values["prompt"])
        return user_turn(values["prompt"], tokenizer)
    elif isinstance(values.get("text"), str):
        return tokenizer.encode(values["text"])
    raise InvalidParameter(f"{where} is no prompt", param="data", hint=FORMS)


def _json(line: str, where: str) -> Any:
    try:
        return json.loads(line)
    except ValueError as error:
        raise InvalidParameter(f"{where} is not JSON: {error}", param="data") from error
