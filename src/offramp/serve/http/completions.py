"""`POST /v1/completions`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import Response

from offramp.errors import InvalidParameter
from offramp.serve.http.answer import Answer
from offramp.serve.http.answers import Completion, generating
from offramp.serve.http.dial import read_dial
from offramp.serve.http.front import Front, FrontOf, check_key
from offramp.serve.http.logprobs import CompletionForm, joined
from offramp.serve.http.reading import JsonRoute
from offramp.serve.http.reports import exit_trace, joined_traces
from offramp.serve.http.requests import CompletionRequest
from offramp.serve.http.run import Tally
from offramp.serve.protocol import LogProbs, Piece
from offramp.tokenizer import Tokenizer
from offramp.types.sampling import SamplingParams

router = APIRouter(route_class=JsonRoute, dependencies=[Depends(check_key)])

DEFAULT_MAX_TOKENS = 16


@router.post("/v1/completions", responses=generating(Completion), tags=["OpenAI"])
async def complete(body: CompletionRequest, request: Request, front: FrontOf) -> Response:
    """Continue texts, or tell the log-probabilities of given ones."""
    tally = Tally()
    front.check_model(body.model)
    if front.ready().max_source_len and body.echo:
        raise InvalidParameter(
            "the model has an encoder: its outputs do not go on from the prompt", param="echo", hint="leave out `echo`"
        )
    asked = read_dial(body.exit, front.settings)
    sampling, echo_only = _sampling(body)
    tells_prompt = echo_only or (body.echo and body.logprobs is not None)
    writers: list[CompletionWriter] = []
    jobs = []
    for prompt in await _prompts(body, front):
        front.check_context(prompt.ids, body.max_tokens, "prompt")
        told = (body.logprobs or 0) if tells_prompt else None
        jobs.append(front.job(prompt.ids, sampling, asked, prompt_logprobs=told, echo_only=echo_only))
        for _ in range(sampling.n):
            with_logprobs, trace = body.logprobs is not None, asked.trace
            writers.append(CompletionWriter(len(writers), front.tokenizer, prompt, with_logprobs, trace))
    kinds = ("text_completion", "text_completion")
    return await Answer(front, body, asked, tally, writers, kinds, "cmpl").respond(request, jobs)


def _sampling(body: CompletionRequest) -> tuple[SamplingParams, bool]:
    """How tokens are drawn, and whether none are.

    Raises:
        InvalidParameter: a value that is not allowed.
    """
    n = body.n or 1
    if body.best_of not in (None, n):
        raise InvalidParameter(f"`best_of` is {body.best_of}, only `n` ({n}) is served", param="best_of")
    echo_only = body.max_tokens == 0
    if echo_only and not body.echo:
        raise InvalidParameter("`max_tokens` is 0", param="max_tokens", hint="this needs `echo`: nothing else is told")
    if echo_only and n > 1:
        raise InvalidParameter(f"`n` is {n}, nothing is generated", param="n", hint="leave it out")
    max_tokens = DEFAULT_MAX_TOKENS if body.max_tokens is None else max(body.max_tokens, 1)
    return body.sampling(max_tokens, body.logprobs), echo_only


@dataclass
class Prompt:
    """A prompt. `text` is what is echoed: nothing, if it is not to be. `logprobs` come with its first piece."""

    text: str
    ids: Sequence[int]
    logprobs: Sequence[LogProbs] = ()


async def _prompts(body: CompletionRequest, front: Front) -> list[Prompt]:
    given: Any = body.prompt
    several: Sequence[Any] = given if isinstance(given, list) and not isinstance(given[0], int) else [given]
    prompts = []
    for one in several:
        if isinstance(one, str):
            prompts.append(Prompt(one if body.echo else "", await front.encode(one, special=True)))
        else:
            text = front.tokenizer.decode(one, skip_special_tokens=False) if body.echo else ""
            prompts.append(Prompt(text, one))
    return prompts


@dataclass
class CompletionWriter:
    """Writes one choice. The first piece is preceded by the prompt, if that is to be echoed."""

    index: int
    tokenizer: Tokenizer
    prompt: Prompt
    with_logprobs: bool
    trace: bool
    taken: list[dict[str, Any]] = field(default_factory=list)
    begun: bool = False

    def __post_init__(self) -> None:
        self._form = CompletionForm(self.tokenizer)

    def chunks(self, piece: Piece) -> list[dict[str, Any]]:
        """A piece as the choice of a chunk; nothing where there is nothing to say."""
        choice = self._choice(piece)
        says = (choice["text"], choice["finish_reason"], choice["logprobs"], choice.get("exit_trace"))
        return [choice] if any(says) else []

    def take(self, piece: Piece) -> None:
        """Add a piece to the whole."""
        self.taken.append(self._choice(piece))

    def whole(self) -> dict[str, Any]:
        """The finished choice."""
        taken = self.taken
        choice: dict[str, Any] = {
            "index": self.index,
            "text": "".join(part["text"] for part in taken),
            "logprobs": joined([part["logprobs"] for part in taken]) if self.with_logprobs else None,
            "finish_reason": taken[-1]["finish_reason"],
        }
        return {**choice, **joined_traces(taken)}

    def _choice(self, piece: Piece) -> dict[str, Any]:
        if piece.prompt_logprobs is not None:
            self.prompt.logprobs = piece.prompt_logprobs
        text, tokens, logprobs = piece.text, piece.token_ids, tuple(piece.logprobs or ())
        if not self.begun:
            text = self.prompt.text + text
            if self.prompt.logprobs:
                tokens, logprobs = (*self.prompt.ids, *tokens), (*self.prompt.logprobs, *logprobs)
        self.begun = True
        form = self._form.write(tokens, logprobs) if self.with_logprobs else None
        choice = {"index": self.index, "text": text, "logprobs": form, "finish_reason": piece.finish_reason}
        return {**choice, "exit_trace": exit_trace(piece, self.tokenizer)} if self.trace else choice
