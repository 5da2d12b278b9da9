"""Answers that last: a client that goes away is noticed at once, and what ran for it is cancelled."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Coroutine, Mapping
from contextlib import suppress
from time import perf_counter
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from offramp.errors import OfframpError
from offramp.serve.http.errors import answer_bug, body_of
from offramp.serve.logs import RequestLog
from offramp.serve.settings import ServerSettings

T = TypeVar("T")
Events = AsyncGenerator[Mapping[str, Any], None]

GRACE = 2.0
"""Seconds that a stream waits for its first event before it begins: errors that come in time get a status."""

ENCODE = json.JSONEncoder(separators=(",", ":")).encode
"""One encoder for all events: `json.dumps` would make one for each."""

DONE = b"data: [DONE]\n\n"
COMMENT = b": keep-alive\n\n"


class ClientGone(Exception):
    """Nobody is there to be answered."""


def as_event(value: Mapping[str, Any]) -> bytes:
    """A server-sent event."""
    return b"data: " + ENCODE(value).encode() + b"\n\n"


async def unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """What `work` comes to; it is cancelled when the client goes away. The body must have been read.

    Raises:
        ClientGone: it went away.
    """
    working = asyncio.ensure_future(work)
    watching = asyncio.ensure_future(_gone(request.receive))
    try:
        await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientGone
        return working.result()
    finally:
        await _end(working, watching)


async def open_stream(request: Request, events: Events, settings: ServerSettings) -> Response:
    """A response that sends events, once the first is there or it has been waited for long enough.

    Raises:
        OfframpError: the first event is an error.
        ClientGone: the client went away before.
    """
    first = asyncio.ensure_future(anext(events))
    try:
        await unless_gone(request, _wait(first))
        if first.done():
            first.result()
    except BaseException:
        await _end(first)
        await events.aclose()
        raise
    return EventStream(first, events, settings)


async def _wait(first: asyncio.Future[Any]) -> None:
    await asyncio.wait({first}, timeout=GRACE)


class EventStream(Response):
    """Sends events as they come, comments while none come, an error as the last event, and `[DONE]`."""

    media_type = "text/event-stream"

    def __init__(self, first: asyncio.Future[Mapping[str, Any]], events: Events, settings: ServerSettings) -> None:
        super().__init__(headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._first, self._events, self._settings = first, events, settings
        self._sent_at = perf_counter()
        self._sending_since: float | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        pouring = asyncio.ensure_future(self._pour(scope, send))
        beside = [asyncio.ensure_future(_gone(receive)), asyncio.ensure_future(self._watch(send))]
        try:
            await asyncio.wait({pouring, *beside}, return_when=asyncio.FIRST_COMPLETED)
            if pouring.done():
                pouring.result()
        finally:
            await _end(pouring, *beside, self._first)
            await self._events.aclose()

    async def _pour(self, scope: Scope, send: Send) -> None:
        try:
            await self._send(send, as_event(await self._first))
            async for event in self._events:
                await self._send(send, as_event(event))
            await self._send(send, DONE)
        except OfframpError as error:
            await self._send(send, as_event(body_of(error)))
        except OSError:
            return  # the connection is gone
        except Exception as error:
            RequestLog.of(scope).failed(error)
            await self._send(send, b"data: " + bytes(answer_bug().body) + b"\n\n")
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _send(self, send: Send, chunk: bytes) -> None:
        self._sending_since = perf_counter()
        await send({"type": "http.response.body", "body": chunk, "more_body": True})
        self._sending_since, self._sent_at = None, perf_counter()

    async def _watch(self, send: Send) -> None:
        """Send comments while there is nothing to say. Ends when the client has not read for too long."""
        settings = self._settings
        while True:
            await asyncio.sleep(min(settings.keep_alive, settings.send_timeout) / 4)
            now, since = perf_counter(), self._sending_since
            if since is not None and now - since > settings.send_timeout:
                return
            if since is None and now - self._sent_at > settings.keep_alive:
                with suppress(OSError):
                    await self._send(send, COMMENT)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _end(*tasks: asyncio.Future[Any]) -> None:
    """Cancel what still runs, and wait until it has ended."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
