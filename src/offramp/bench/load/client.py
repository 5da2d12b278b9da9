"""An HTTP client for measuring: it sends a request and notes when which bytes came. Reading them is for later.

Whoever shares a machine with the server it measures takes time away from it. So nothing is parsed while answers come:
for each read from the socket there is a look at the clock and an item in a list.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from time import perf_counter
from typing import Any
from urllib.parse import urlsplit

from offramp.errors import InvalidParameter

LAST_CHUNK = b"0\r\n\r\n"
"""Ends a chunked body. Events never look so: their lines end with a line feed alone, or hold something."""

TIMEOUT = 6 * 3600.0
"""Seconds that a request may take."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where requests go. `path` stands before every endpoint; `headers` are sent with each request."""

    host: str
    port: int
    tls: bool = False
    path: str = ""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)

    @classmethod
    def from_url(cls, url: str, headers: Mapping[str, str] | None = None) -> Target:
        """From a server's address, such as `http://127.0.0.1:8000`.

        Raises:
            InvalidParameter: it is no such address.
        """
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            parts, port = urlsplit(""), None
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise InvalidParameter(
                f"`{url}` is not the address of a server", param="base_url", hint="such as http://127.0.0.1:8000"
            )
        tls = parts.scheme == "https"
        return cls(parts.hostname, port or (443 if tls else 80), tls, parts.path.rstrip("/"), dict(headers or {}))

    def request(self, endpoint: str, body: Any = None, headers: Mapping[str, str] | None = None) -> bytes:
        """A whole request: a POST with a JSON body, or a GET without one."""
        content = b"" if body is None else json.dumps(body, separators=(",", ":")).encode()
        host = f"[{self.host}]" if ":" in self.host else self.host
        lines = {
            "Host": f"{host}:{self.port}",
            "Connection": "close",
            "Accept": "*/*",
            **({} if body is None else {"Content-Type": "application/json", "Content-Length": str(len(content))}),
            **self.headers,
            **(headers or {}),
        }
        head = f"{'GET' if body is None else 'POST'} {self.path}{endpoint} HTTP/1.1\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        return head.encode("latin-1", "replace") + b"\r\n" + content


@dataclass(slots=True)
class Recorded:
    """What a request brought: when it was sent, and what was read when, by `perf_counter`.

    `error` says why there is no answer, or not all of it, as far as the connection knows.
    """

    sent: float = 0.0
    arrivals: list[tuple[float, bytes]] = field(default_factory=list)
    error: str | None = None


async def exchange(target: Target, request: bytes, timeout: float = TIMEOUT) -> Recorded:
    """Connect, and from then on count the time: send a request and record the answer up to its end.

    A failure is in `Recorded.error`; nothing is raised.
    """
    recorded = Recorded(sent=perf_counter())
    loop = asyncio.get_running_loop()
    transport = None
    try:
        secure = _secure() if target.tls else None
        transport, recorder = await loop.create_connection(
            lambda: _Recorder(recorded.arrivals), target.host, target.port, ssl=secure
        )
        recorded.sent = perf_counter()
        transport.write(request)
        await asyncio.wait_for(recorder.ended, timeout)
    except asyncio.TimeoutError:
        recorded.error = f"no end of the answer within {timeout:.0f} s"
    except OSError as error:
        recorded.error = error.strerror or str(error) or type(error).__name__
    finally:
        if transport is not None:
            transport.abort()
    return recorded


@cache
def _secure() -> ssl.SSLContext:
    """It reads all certificates, which takes 20 ms: once, and not while requests run."""
    return ssl.create_default_context()


class _Recorder(asyncio.Protocol):
    def __init__(self, arrivals: list[tuple[float, bytes]]) -> None:
        self._arrivals = arrivals
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def data_received(self, data: bytes) -> None:
        self._arrivals.append((perf_counter(), data))
        if data.endswith(LAST_CHUNK):
            self._end(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(exc)

    def _end(self, error: Exception | None) -> None:
        if self.ended.done():
            return
        if error is None:
            self.ended.set_result(None)
        else:
            self.ended.set_exception(error)
