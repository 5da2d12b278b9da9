"""An answer in the making: whole, or as the chunks of a stream."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Protocol
from uuid import uuid4

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from offramp.serve.http.dial import Asked
from offramp.serve.http.front import Front
from offramp.serve.http.reports import exit_summary
from offramp.serve.http.requests import Generation
from offramp.serve.http.run import Choice, Tally
from offramp.serve.http.sse import open_stream, unless_gone
from offramp.serve.protocol import Job, Piece


class Writer(Protocol):
    """Writes one choice, from its pieces."""

    def chunks(self, piece: Piece) -> list[dict[str, Any]]:
        """A piece as choices of a stream's chunks; the last piece's last one has the finish reason, no other has."""

    def take(self, piece: Piece) -> None:
        """Add a piece to the whole."""

    def whole(self) -> dict[str, Any]:
        """The choice, once all its pieces have been taken."""


@dataclass
class Answer:
    """The answer to one of OpenAI's generating requests.

    `kinds` are the names of the answer and of a stream's chunk in the field `object`; `prefix` begins its id.
    """

    front: Front
    body: Generation
    asked: Asked
    tally: Tally
    writers: Sequence[Writer]
    kinds: tuple[str, str]
    prefix: str
    created: int = field(default_factory=lambda: int(time.time()))

    def __post_init__(self) -> None:
        self._id = f"{self.prefix}-{uuid4().hex}"
        self._num_layers = self.front.ready().num_layers

    async def respond(self, request: Request, jobs: Sequence[Job]) -> Response:
        """Run the jobs and answer, in the way that the request asks for.

        Raises:
            OfframpError: a job was refused or broke off.
            ClientGone: nobody is there any more.
        """
        choices = self.front.run(request, jobs, self.asked, self.tally)
        if self.body.stream:
            return await open_stream(request, self._events(choices), self.front.settings)
        return JSONResponse(await unless_gone(request, self._whole(choices)))

    async def _whole(self, choices: AsyncGenerator[Choice, None]) -> dict[str, Any]:
        async with aclosing(choices):
            async for number, piece in choices:
                self.writers[number].take(piece)
        written = [writer.whole() for writer in self.writers]
        return {**self._shell(self.kinds[0], written), "usage": self.tally.usage(), "exit": self._exit()}

    async def _events(self, choices: AsyncGenerator[Choice, None]) -> AsyncGenerator[dict[str, Any], None]:
        """The last chunk with a finish reason carries `exit`; one with the usage, if asked for, follows."""
        options, left = self.body.stream_options, len(self.writers)
        usage, always = (options.include_usage, options.continuous_usage_stats) if options else (False, False)
        async with aclosing(choices):
            async for number, piece in choices:
                for choice in self.writers[number].chunks(piece):
                    chunk = self._shell(self.kinds[1], [choice])
                    if usage or always:
                        chunk["usage"] = self.tally.usage() if always else None
                    if choice["finish_reason"] is not None:
                        left -= 1
                        if not left:
                            chunk["exit"] = self._exit()
                    yield chunk
        if usage:
            yield {**self._shell(self.kinds[1], []), "usage": self.tally.usage()}

    def _shell(self, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        model = self.front.settings.model_name
        return {"id": self._id, "object": kind, "created": self.created, "model": model, "choices": choices}

    def _exit(self) -> dict[str, Any]:
        return exit_summary(self.tally.report, self.asked, self._num_layers)
