"""Where prompts come from: the command line, standard input, or a file."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from offramp.errors import InvalidParameter

Message = dict[str, Any]
Prompt = str | list[Message]
"""Text, or the messages of a conversation."""


def read_prompts(words: Sequence[str], file: Path | None) -> list[Prompt]:
    """The prompts given as arguments (`-` is all of standard input) and those of a file, in this order.

    Raises:
        InvalidParameter: no prompts at all, or a file that cannot be read.
    """
    prompts: list[Prompt] = [sys.stdin.read() if word == "-" else word for word in words]
    if file is not None:
        prompts.extend(_read_file(file))
    if not prompts:
        raise InvalidParameter("there is no prompt", hint="give a PROMPT, `-` for standard input, or `--prompts FILE`")
    return prompts


def as_messages(prompt: Prompt, system: str | None) -> list[Message]:
    """A prompt as a conversation: text becomes the user's turn. `system` goes first."""
    turns = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    return turns if system is None else [{"role": "system", "content": system}, *turns]


def _read_file(path: Path) -> list[Prompt]:
    try:
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidParameter(f"`{path}` cannot be read: {error}", param="prompts") from error
    if path.suffix != ".jsonl":
        return list(lines)
    return [_from_json(line, f"line {number} of `{path}`") for number, line in enumerate(lines, start=1)]


def _from_json(line: str, where: str) -> Prompt:
    try:
        value = json.loads(line)
    except ValueError as error:
        raise InvalidParameter(f"{where} is not JSON: {error}", param="prompts") from error
    if isinstance(value, dict):
        value = value.get("prompt", value.get("messages"))
    messages = isinstance(value, list) and value and all(isinstance(turn, dict) for turn in value)
    if not isinstance(value, str) and not messages:
        raise InvalidParameter(
            f"{where} is no prompt",
            param="prompts",
            hint='a line is a string, {"prompt": "..."} or {"messages": [{"role": "user", "content": "..."}]}',
        )
    prompt: Prompt = value
    return prompt
