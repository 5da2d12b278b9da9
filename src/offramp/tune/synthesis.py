"""Data made by the model itself: it invents a user's turn, and answers it.

An instruction-tuned model that is given its chat template up to the place of the user's words writes what users write
(Magpie, Xu et al. 2024). For exits this is the right distribution: they serve the model's own answers.

What a seed gives depends on nothing but the seed, and samples are written in the order of their seeds, so a run that
was interrupted goes on to the same file. Turns are invented while answers are given, so the engine's batch stays full.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import NamedTuple

from offramp.errors import InvalidParameter, TokenizerError
from offramp.llm import LLM
from offramp.llm.session import Stream
from offramp.tokenizer import Tokenizer
from offramp.tune.repetition import Watch, cut_loop
from offramp.tune.report import Meter
from offramp.tune.samples import Corpus, Sample
from offramp.tune.settings import DataSettings
from offramp.types.output import Output
from offramp.types.sampling import SamplingParams

MIN_USER_TOKENS = 4

MARK = "\u241f"
"""Stands where the user's words go."""

MOST_REFUSED = 1000
"""Invented turns in a row that may be of no use."""


class Question(NamedTuple):
    """A prompt, and its answer, which is None where the model is to give it. `number`: the seed or record, from 0."""

    number: int
    prompt: Sequence[int]
    answer: Sequence[int] | None = None


def grow(corpus: Corpus, questions: Iterator[Question], llm: LLM, settings: DataSettings, meter: Meter) -> None:
    """Add the answers to `questions`, in order, up to `settings.tokens` answer tokens."""
    waiting: deque[tuple[Question, Stream | None]] = deque()
    try:
        while corpus.tokens < settings.tokens:
            question = next(questions, None)
            if question is not None:
                waiting.append((question, None if question.answer is not None else _ask(llm, question, settings)))
            if not waiting:
                break
            if question is None or len(waiting) > settings.batch:
                asked, stream = waiting.popleft()
                answer = asked.answer if stream is None else _answer(_finish(stream))
                if answer is not None:
                    corpus.append([Sample((*asked.prompt, *answer), len(asked.prompt))], asked.number)
                    meter(corpus.tokens)
    finally:
        for _, stream in waiting:
            if stream is not None:
                stream.close()
    if not corpus.samples:
        raise InvalidParameter(
            "there are no data: the file has no record that can be used",
            param="data",
            hint="records need an answer, and room in the model's context",
        )


def invent(llm: LLM, settings: DataSettings, corpus: Corpus) -> Iterator[Question]:
    """User turns that the model invents, without end, going on behind the last one in `corpus`.

    Turns that do not end by themselves, are very short, are no text, or were said before are left out.

    Raises:
        TokenizerError: the model has no chat template.
        InvalidParameter: no turn is of use.
    """
    tokenizer, prefix = llm.tokenizer, user_prefix(llm.tokenizer)
    seen = {turn_key(tokenizer, s.token_ids[: s.prompt_tokens]) for s in corpus.samples}
    turns: deque[Stream] = deque()
    number, refused = corpus.next, 0
    try:
        while refused < MOST_REFUSED:
            while len(turns) < settings.batch:
                turns.append(llm.stream(prefix, _turn_sampling(settings, number + len(turns))))
            prompt = _prompt(tokenizer, _finish(turns.popleft()))
            refused += 1
            if prompt is not None and (key := turn_key(tokenizer, prompt)) not in seen:
                seen.add(key)
                refused = 0
                yield Question(number, prompt)
            number += 1
    finally:
        for turn in turns:
            turn.close()
    raise InvalidParameter(
        f"the model invents no user turns: {MOST_REFUSED} in a row were too short, too long or repetitions",
        param="data",
        hint="raise `--max-user-tokens` or `--temperature`, or give a file as `--data`",
    )


def _turn_sampling(settings: DataSettings, number: int) -> SamplingParams:
    return SamplingParams(
        temperature=settings.temperature,
        top_p=settings.top_p,
        seed=_seed(settings, number),
        max_tokens=settings.max_user_tokens,
    )


def _seed(settings: DataSettings, number: int) -> int:
    return (settings.seed << 32) + number


def _prompt(tokenizer: Tokenizer, output: Output) -> list[int] | None:
    """The prompt with an invented turn, or None where it is of no use."""
    text = output.text.strip()
    if output.finish_reason != "stop" or not is_turn(text, len(output.token_ids) - 1):
        return None
    return tokenizer.encode(
        tokenizer.apply_chat_template([{"role": "user", "content": text}]), add_special_tokens=False
    )


def is_turn(text: str, tokens: int) -> bool:
    """Whether a user's turn of so many tokens is of use."""
    return tokens >= MIN_USER_TOKENS and bool(text.strip()) and "\ufffd" not in text


def _ask(llm: LLM, question: Question, settings: DataSettings) -> Stream:
    sampling = SamplingParams(
        temperature=settings.answer_temperature,
        seed=_seed(settings, question.number),
        max_tokens=settings.max_answer_tokens,
    )
    return llm.stream(list(question.prompt), sampling, stop_check=Watch())


def _answer(output: Output) -> tuple[int, ...] | None:
    """The tokens of an answer; None where the model gave none."""
    if output.finish_reason == "error" or len(output.token_ids) < 2:
        return None
    return cut_loop(output.token_ids)


def _finish(stream: Stream) -> Output:
    """Wait for the end of an output; all others go on meanwhile."""
    with closing(stream):
        for chunk in stream:
            if chunk.output is not None:
                return chunk.output
    raise AssertionError("a stream ends with its output")


def user_prefix(tokenizer: Tokenizer) -> list[int]:
    """The chat template up to the place of the user's words.

    Raises:
        TokenizerError: there is no chat template, or it does not show the user's words.
    """
    text = tokenizer.apply_chat_template([{"role": "user", "content": MARK}], add_generation_prompt=False)
    before, mark, _ = text.partition(MARK)
    if not mark or not before:
        raise TokenizerError(
            "the chat template gives the model no place from which to invent a user's turn",
            hint="give a file as `--data`",
        )
    return tokenizer.encode(before, add_special_tokens=False)


def turn_key(tokenizer: Tokenizer, prompt: Sequence[int]) -> str:
    """What two prompts share that differ in case and spaces alone."""
    return " ".join(tokenizer.decode(prompt).lower().split())
