"""Running the application: a socket, signals, and an end that lets running requests finish."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Generator
from contextlib import contextmanager, suppress
from typing import Any

import uvicorn
from fastapi import FastAPI

from offramp.errors import OfframpError
from offramp.serve.protocol import EngineClient, EngineInfo
from offramp.serve.settings import ServerSettings
from offramp.types.exits import ExitParams

SIGNALS = (signal.SIGINT, signal.SIGTERM)

BACKLOG = 2048
"""Connections that may wait to be accepted."""

INTERRUPTED = 130
"""Exit code after a second signal."""

SLACK = 5.0
"""Seconds beyond the drain timeout that requests have to tell their clients that they broke off."""


def listen(host: str, port: int) -> socket.socket:
    """A listening socket.

    Raises:
        OfframpError: there can be none.
    """
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise OfframpError(
            f"`{host}:{port}` cannot be listened on: {error.strerror or error}",
            hint="choose another address with `--host` and `--port`",
        ) from None


def url_of(listening: socket.socket) -> str:
    """Where a socket is reached."""
    host, port = listening.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def ready_lines(info: EngineInfo, settings: ServerSettings, url: str) -> list[str]:
    """What a person is told once the server takes requests."""
    exits = ",".join(map(str, info.exit_layers))
    dial = "by criterion" if isinstance(settings.exit, ExitParams) else str(settings.exit)
    mounted = f", mounted by a proxy at {settings.root_path}" if settings.root_path else ""
    sources = f" · {_short(info.source_tokens)} of sources" if info.source_tokens else ""
    return [
        f"Serving {settings.model_name} at {url}{mounted}",
        f"{f'exits {exits}' if exits else 'no exits'} · {dial} · {_short(info.kv_tokens)} KV tokens{sources}",
    ]


def _short(tokens: int) -> str:
    return f"{tokens // 1000}k" if tokens >= 10_000 else str(tokens)


async def serve(
    app: FastAPI, client: EngineClient, settings: ServerSettings, listening: socket.socket, say: Any = print
) -> None:
    """Serve until a signal comes; `say` is given the lines for a person.

    A first SIGINT or SIGTERM stops accepting, and gives running requests the drain timeout; a second one ends the
    process at once.

    Raises:
        OfframpError: the engine cannot be started, for the first time or again.
    """
    config = uvicorn.Config(
        app,
        root_path=settings.root_path,
        log_config=None,
        access_log=False,
        server_header=False,
        lifespan="on",
        timeout_graceful_shutdown=int(settings.drain_timeout + SLACK),
    )
    server = Server(config, client, settings.drain_timeout)
    told = asyncio.create_task(_announce(client, settings, url_of(listening), say))
    ending = asyncio.create_task(_end_with(server, client))
    try:
        await server.serve(sockets=[listening])
    finally:
        for task in (told, ending):
            task.cancel()
        with suppress(asyncio.CancelledError, OfframpError):
            await told
        with suppress(asyncio.CancelledError):
            await ending


async def _announce(client: EngineClient, settings: ServerSettings, url: str, say: Any) -> None:
    """Tell when the engine is ready."""
    for line in ready_lines(await client.wait_ready(), settings, url):
        say(line)


async def _end_with(server: Server, client: EngineClient) -> None:
    """End the server when its engine is down for good, whose jobs know by then.

    Raises:
        OfframpError: it is, and nobody has told the server to end.
    """
    reason = await client.wait_lost()
    if not server.should_exit:
        server.should_exit = True
        raise reason


class Server(uvicorn.Server):
    """uvicorn's server, which ends when told to, with requests having `drain_timeout` seconds to finish."""

    def __init__(self, config: uvicorn.Config, client: EngineClient, drain_timeout: float) -> None:
        super().__init__(config)
        self._client, self._drain_timeout = client, drain_timeout
        self._draining: asyncio.Task[None] | None = None

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Signals are ours while it serves; they are not raised again, so that the process can end well."""
        loop = asyncio.get_running_loop()
        for number in SIGNALS:
            loop.add_signal_handler(number, self._told_to_end)
        try:
            yield
        finally:
            for number in SIGNALS:
                loop.remove_signal_handler(number)

    def _told_to_end(self) -> None:
        if self.should_exit:
            # The engine's process ends with us: it sees its pipe close.
            os._exit(INTERRUPTED)
        self.should_exit = True
        # Whatever runs longer than this gets an error from the engine, and with it a clear end.
        self._draining = asyncio.create_task(self._client.close(self._drain_timeout))
