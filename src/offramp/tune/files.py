"""Data from a file: `.jsonl` with a record a line, or plain text.

A record is one of

    {"messages": [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}]}
    {"prompt": "..."}                           a user's turn
    {"prompt": "...", "completion": "..."}      as they are, without a chat template
    {"text": "..."}                             also a bare string; every token is learnt
    {"token_ids": [...], "prompt_tokens": n}    as `offramp tune` writes them

Messages that end with the user's, and a prompt without a completion, are answered by the model; the latter goes
through the chat template if there is one. Text is cut into pieces.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from offramp.errors import InvalidParameter
from offramp.llm import LLM
from offramp.tokenizer import Tokenizer
from offramp.tokenizer.chat import check_messages
from offramp.tune.samples import Corpus, Sample, read_sample
from offramp.tune.settings import DataSettings
from offramp.tune.synthesis import Question

HINT = (
    'a line is {"messages": [...]}, {"prompt": "...", "completion": "..."}, {"text": "..."} or '
    '{"token_ids": [...], "prompt_tokens": n}'
)


class Record(NamedTuple):
    """Tokens of a prompt, and of its answer, which is None where the model is to give it."""

    prompt: list[int]
    answer: list[int] | None


def file_questions(path: Path, llm: LLM, settings: DataSettings, corpus: Corpus) -> Iterator[Question]:
    """The records of a file behind the last one in `corpus`; those that the model's context cannot hold are left out.

    Raises:
        InvalidParameter: the file cannot be read, or a line of it is no record.
    """
    most, context = settings.max_answer_tokens, llm.engine.executor.shape.max_model_len
    records = read_records(path, llm.tokenizer, llm.spec.eos_token_ids, most)
    for number, (prompt, answer) in enumerate(records):
        answer = None if answer is None else answer[:most]
        length = most if answer is None else len(answer)
        if number >= corpus.next and length and len(prompt) + length <= context:
            yield Question(number, prompt, answer)


def read_records(path: Path, tokenizer: Tokenizer, eos: tuple[int, ...], piece: int) -> Iterator[Record]:
    """The records of a file; text in pieces of `piece` tokens, of which the first is the prompt.

    Raises:
        InvalidParameter: the file cannot be read, or a line of it is no record.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidParameter(
            f"the data `{path}` cannot be read: {error}", param="data", hint="`--data` is `self` or a file"
        ) from error
    if path.suffix != ".jsonl":
        yield from _pieces(tokenizer.encode(text), piece)
        return
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            where = f"line {number} of `{path}`"
            try:
                value = json.loads(line)
            except ValueError as error:
                raise InvalidParameter(f"{where} is not JSON: {error}", param="data", hint=HINT) from error
            yield from _records(value, tokenizer, eos, piece, where)


def _records(value: Any, tokenizer: Tokenizer, eos: tuple[int, ...], piece: int, where: str) -> Iterator[Record]:
    value = {"text": value} if isinstance(value, str) else value
    keys = set(value) if isinstance(value, dict) else set()
    end = list(eos[:1])
    if "messages" in keys:
        *before, last = check_messages(value["messages"])
        answered = last["role"] == "assistant" and bool(before)
        chat = tokenizer.apply_chat_template(before if answered else value["messages"])
        content = tokenizer.encode(last["content"], add_special_tokens=False) + end if answered else None
        yield Record(tokenizer.encode(chat, add_special_tokens=False), content)
    elif "prompt" in keys and isinstance(value["prompt"], str) and value["prompt"]:
        given = value.get("completion")
        if not isinstance(given, str | None):
            raise InvalidParameter(f"`completion` in {where} must be a string", param="data", hint=HINT)
        if given is None and tokenizer.has_chat_template:
            turn = {"messages": [{"role": "user", "content": value["prompt"]}]}
            yield from _records(turn, tokenizer, eos, piece, where)
            return
        content = None if given is None else tokenizer.encode(given, add_special_tokens=False) + end
        yield Record(tokenizer.encode(value["prompt"]), content)
    elif "text" in keys and isinstance(value["text"], str):
        yield from _pieces(tokenizer.encode(value["text"]), piece)
    elif {"token_ids", "prompt_tokens"} <= keys:
        sample = _checked(value, tokenizer.vocab_size, where)
        ids = list(sample.token_ids)
        yield Record(ids[: sample.prompt_tokens], ids[sample.prompt_tokens :])
    else:
        raise InvalidParameter(f"{where} is no record", param="data", hint=HINT)


def _pieces(ids: list[int], piece: int) -> Iterator[Record]:
    for start in range(0, len(ids), piece):
        part = ids[start : start + piece]
        yield Record(part[:1], part[1:])


def _checked(value: dict[str, Any], vocab_size: int, where: str) -> Sample:
    ids, prompt = value["token_ids"], value["prompt_tokens"]
    tokens = isinstance(ids, list) and all(type(i) is int and 0 <= i < vocab_size for i in ids)
    if not tokens or type(prompt) is not int or not 1 <= prompt <= len(ids):
        raise InvalidParameter(
            f"{where} must list token ids below {vocab_size}, and at least one of them as the prompt",
            param="data",
            hint=HINT,
        )
    return read_sample(value)
