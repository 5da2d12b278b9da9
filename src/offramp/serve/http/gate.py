"""What every request passes: an id, a limit on its body, a line in the log, and an answer even to our bugs."""

from __future__ import annotations

import re
from time import perf_counter
from uuid import uuid4

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from offramp.serve.http.errors import Refusal, answer_bug
from offramp.serve.http.sse import ClientGone
from offramp.serve.logs import Log, RequestLog
from offramp.serve.settings import ServerSettings

UNLOGGED = re.compile(r"/|/dashboard|/static/.*|/metrics|/load|/health(/ready|_generate)?")
"""What pages, scrapers and probes fetch again and again is logged only where it fails."""

REQUEST_ID = re.compile(r"[\w.:/+=-]{1,128}", re.ASCII)


class Gate:
    """ASGI middleware around all routes."""

    def __init__(self, app: ASGIApp, settings: ServerSettings, log: Log) -> None:
        self._app, self._settings, self._log = app, settings, log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        asked = Headers(scope=scope).get("x-request-id", "")
        request = RequestLog(asked if REQUEST_ID.fullmatch(asked) else uuid4().hex, self._log)
        scope["offramp.log"] = request
        started, status = perf_counter(), 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["X-Request-Id"] = request.id
            await send(message)

        try:
            await self._app(scope, _limited(scope, receive, self._settings.max_body), send_with_id)
        except (ClientGone, ClientDisconnect):
            status = 499
        except Exception as error:
            request.failed(error)
            if not status:
                await answer_bug()(scope, receive, send_with_id)
        finally:
            self._write(request, scope, status, perf_counter() - started)

    def _write(self, request: RequestLog, scope: Scope, status: int, seconds: float) -> None:
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        if UNLOGGED.fullmatch(path) and 0 < status < 400:
            return
        what = {"id": request.id, "method": scope["method"], "path": scope["path"], "status": status or 499}
        self._log.write("request", **what, **request.fields, seconds=seconds)
        if request.trouble is not None:
            self._log.write("bug", id=request.id, traceback=request.trouble)


def _limited(scope: Scope, receive: Receive, most: int) -> Receive:
    """`receive`, which refuses a body of more than `most` bytes as soon as it is known to be larger.

    Raises:
        Refusal: it is larger.
    """
    length = Headers(scope=scope).get("content-length", "")
    too_large = Refusal(413, f"the body is too large, at most {most} bytes are taken", code="body_too_large")
    size = 0

    async def limited() -> Message:
        nonlocal size
        if length.isdecimal() and int(length) > most:
            raise too_large
        message = await receive()
        size += len(message.get("body", b""))
        if size > most:
            raise too_large
        return message

    return limited
