"""The server at a real socket, in this process: for tests of connections, signals and other people's clients."""

from __future__ import annotations

import asyncio
import io
import os
import signal
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import httpx

from offramp.serve.app import create_app
from offramp.serve.fake import FakeClient
from offramp.serve.fake_output import byte_tokenizer
from offramp.serve.logs import Log
from offramp.serve.protocol import EngineStats
from offramp.serve.server import listen, serve, url_of
from offramp.serve.settings import ServerSettings
from tests.serve.site import MARKED, Counting

T = TypeVar("T")


@dataclass
class Live:
    """A server that runs until it is told to end, as a person would tell it."""

    url: str
    client: FakeClient
    http: httpx.AsyncClient
    metrics: Counting
    serving: asyncio.Task[None]
    written: io.StringIO = field(default_factory=io.StringIO)
    said: list[str] = field(default_factory=list)
    told: bool = False

    def end(self) -> None:
        """Tell it to end; once, for a second time would end this process."""
        if not self.told:
            os.kill(os.getpid(), signal.SIGTERM)
        self.told = True

    async def until(self, holds: Callable[[EngineStats], bool]) -> EngineStats:
        """Wait until the engine looks as it should."""
        while not holds(stats := await self.client.stats()):
            await asyncio.sleep(0.005)
        return stats


@asynccontextmanager
async def live(*, engine: dict[str, Any] | None = None, **settings: Any) -> AsyncGenerator[Live, None]:
    tokenizer = byte_tokenizer(MARKED)
    client, metrics, said = FakeClient(tokenizer, **(engine or {})), Counting(), list[str]()
    written = io.StringIO()
    kept = ServerSettings("fake", **settings)
    listening = listen("127.0.0.1", 0)
    app = create_app(client, tokenizer, kept, metrics, Log(stream=written))
    url = url_of(listening)
    serving = asyncio.create_task(serve(app, client, kept, listening, said.append))
    async with httpx.AsyncClient(base_url=url) as http:
        await client.wait_ready()
        here = Live(url, client, http, metrics, serving, written, said)
        yield here
    here.end()
    await serving


def stage(scene: Callable[[Live], Awaitable[T]], *, seconds: float = 60, **options: Any) -> T:
    """What a scene, of at most so many seconds, comes to at a server of its own."""

    async def play() -> T:
        async with live(**options) as here:
            return await asyncio.wait_for(scene(here), seconds)

    return asyncio.run(play())
