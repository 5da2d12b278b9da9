"""What the routes share: the engine, the tokenizer, the settings, and the way from a request to its jobs."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar
from uuid import uuid4

from fastapi import Depends, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.requests import Request

from offramp.errors import EngineDown
from offramp.serve.http.dial import Asked
from offramp.serve.http.errors import ContextTooLong, Refusal
from offramp.serve.http.run import Choice, Tally, run_jobs
from offramp.serve.logs import Log, RequestLog
from offramp.serve.observe import Metrics
from offramp.serve.protocol import EngineClient, EngineInfo, Job
from offramp.serve.settings import ServerSettings, dial_word
from offramp.tokenizer import Tokenizer
from offramp.types.sampling import SamplingParams

T = TypeVar("T")

LONG_TEXT = 4096
"""Characters from which on a text is tokenised in a thread: other requests need not wait for it."""

STATES = {
    "starting": "the engine is starting",
    "draining": "the server is about to end and takes no more requests",
    "down": "the engine is down",
}


@dataclass(frozen=True, slots=True)
class Front:
    """Everything that a route may use."""

    client: EngineClient
    tokenizer: Tokenizer
    settings: ServerSettings
    metrics: Metrics
    log: Log

    @staticmethod
    def of(request: Request) -> Front:
        """That of the application."""
        front = request.app.state.front
        assert isinstance(front, Front)
        return front

    def ready(self) -> EngineInfo:
        """The engine's facts.

        Raises:
            EngineDown: it takes no jobs now.
        """
        info = self.client.info
        if self.client.state != "ready" or info is None:
            raise EngineDown(STATES.get(self.client.state, "the engine is starting"), hint="try again later")
        return info

    def check_model(self, model: str | None) -> None:
        """A request's `model` must be a name of the one that is served.

        Raises:
            Refusal: it is not.
        """
        names = self.settings.names
        if model is not None and model not in names:
            hint = f"{' and '.join(f'`{name}`' for name in names)} {'is' if len(names) == 1 else 'are'} served"
            raise Refusal(404, f"there is no model `{model}`", param="model", code="model_not_found", hint=hint)

    async def encode(self, text: str, *, special: bool) -> list[int]:
        """Token ids of a text; `special`: with the tokens that go around it."""
        return await self.compute(len(text), lambda: self.tokenizer.encode(text, add_special_tokens=special))

    async def compute(self, size: int, work: Callable[[], T]) -> T:
        """What `work` on so many characters comes to, in a thread if they are many."""
        return await asyncio.to_thread(work) if size > LONG_TEXT else work()

    def check_context(self, prompt: Sequence[int], max_tokens: int | None, param: str) -> None:
        """A prompt must fit the context together with what is to be generated: 0 for nothing, None for at least one.

        Where there is an encoder, the prompt is a source, and the context holds what is to be generated alone.

        Raises:
            ContextTooLong: it does not; with both numbers.
        """
        info = self.ready()
        room, size = info.max_model_len, len(prompt)
        if info.max_source_len:
            _check_source(size, info, max_tokens, param)
            return
        if size >= room + (max_tokens == 0):
            message = f"the prompt has {size} tokens, the context holds {room} and must fit at least one more"
            raise ContextTooLong(message, param=param, hint="shorten it")
        if size + (max_tokens or 0) > room:
            raise ContextTooLong(
                f"the context holds {room} tokens, {size + (max_tokens or 0)} are asked for: {size} in the prompt and "
                f"{max_tokens} to be generated",
                param=param,
                hint="shorten the prompt, or ask for fewer tokens",
            )

    def job(self, prompt: Sequence[int], sampling: SamplingParams, asked: Asked, **more: Any) -> Job:
        """A job with an id of its own."""
        return Job(uuid4().hex, tuple(prompt), sampling, asked.dial, **more)

    async def run(
        self, request: Request, jobs: Sequence[Job], asked: Asked, tally: Tally
    ) -> AsyncGenerator[Choice, None]:
        """The pieces of jobs; what they came to goes to the log as well. Closing it cancels them.

        Raises:
            OfframpError: a job was refused or broke off.
        """
        said = RequestLog.of(request.scope).fields
        choices = run_jobs(self.client, jobs, tally, self.metrics, self.ready().max_num_seqs)
        try:
            async with aclosing(choices):
                async for choice in choices:
                    yield choice
        finally:
            report = tally.report
            said.update(
                prompt_tokens=tally.prompt_tokens,
                output_tokens=tally.output_tokens,
                ttft=tally.ttft,
                mean_depth=report.mean_exit_layer if report is not None and tally.output_tokens else None,
                exit=dial_word(asked.dial),
                outcome=tally.outcome,
            )


def _check_source(size: int, info: EngineInfo, max_tokens: int | None, param: str) -> None:
    if size > info.max_source_len:
        message = f"the prompt has {size} tokens, the encoder reads {info.max_source_len}"
        raise ContextTooLong(message, param=param, hint="shorten it")
    if 1 + (max_tokens or 0) > info.max_model_len:
        raise ContextTooLong(
            f"{max_tokens} tokens are to be generated, an output has at most {info.max_model_len - 1}",
            param="max_tokens",
            hint="ask for fewer",
        )


async def front_of(request: Request) -> Front:
    """The application's `Front`, as a dependency; asynchronous, for others run in threads."""
    return Front.of(request)


FrontOf = Annotated[Front, Depends(front_of)]

BEARER = HTTPBearer(auto_error=False, description="Needed where the server was started with an API key.")


async def check_key(request: Request, shown: Annotated[HTTPAuthorizationCredentials | None, Security(BEARER)]) -> None:
    """Requests must show the API key, if there is one. Compared in a time that says nothing about it.

    Raises:
        Refusal: they do not.
    """
    key = Front.of(request).settings.api_key
    if key is None:
        return
    given = "" if shown is None else shown.credentials
    if not hmac.compare_digest(given.encode(), key.encode()):
        what = "the API key is wrong" if given else "an API key is needed"
        raise Refusal(401, what, code="invalid_api_key", hint="send `Authorization: Bearer KEY`")
