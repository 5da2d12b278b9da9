"""HTTP/1.1 as badly behaved clients speak it: slowly, in parts, or not to the end. A connection for each request."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

Manner = Literal["plain", "slow", "leave", "half"]
"""`slow` reads a few bytes at a time; `leave` goes away before the answer is whole, `half` before the request is."""

TIMEOUT = 120.0
"""Seconds after which a request counts as one that never ends."""

CONNECT_SECONDS = 10.0


@dataclass
class Answer:
    """What came back. `whole`: all of it, as HTTP counts; `trouble` says why not."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    whole: bool = False
    trouble: str = ""


def request(method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None) -> bytes:
    """A request as it goes over the wire."""
    head = {"Host": "soak", "Connection": "close", **(headers or {})}
    if body or method == "POST":
        head = {"Content-Type": "application/json", "Content-Length": str(len(body)), **head}
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in head.items())]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


async def exchange(address: tuple[str, int], sent: bytes, manner: Manner = "plain", patience: float = 0.0) -> Answer:
    """Send a request and take the answer.

    Args:
        patience: seconds after which `leave` goes away, or that `slow` waits before it reads on.
    """
    answer = Answer()
    try:
        await asyncio.wait_for(_exchange(address, sent, manner, patience, answer), TIMEOUT)
    except asyncio.TimeoutError:
        answer.trouble = f"no end after {TIMEOUT:g} s"
    except (OSError, EOFError, ValueError, asyncio.LimitOverrunError) as error:
        answer.trouble = f"{type(error).__name__}: {error}"
    return answer


async def _exchange(address: tuple[str, int], sent: bytes, manner: Manner, patience: float, answer: Answer) -> None:
    reader, writer = await asyncio.wait_for(_connect(address, small=manner == "slow"), CONNECT_SECONDS)
    try:
        if manner == "half":
            writer.write(sent[: len(sent) * 2 // 3])
            await asyncio.sleep(patience)
            return
        writer.write(sent)
        reading = asyncio.ensure_future(_read(reader, answer, patience if manner == "slow" else 0.0))
        await asyncio.wait({reading}, timeout=patience if manner == "leave" else None)
        if not reading.done():
            reading.cancel()
            await asyncio.wait({reading})
        else:
            reading.result()
    finally:
        # A client that goes away does so without a word, as a process that is killed.
        (writer.transport.abort if manner in ("leave", "half") else writer.close)()


async def _connect(address: tuple[str, int], small: bool) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection; with `small` buffers one whose reader is felt by the server soon."""
    if not small:
        return await asyncio.open_connection(*address)
    own = socket.socket()
    own.setblocking(False)
    own.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    await asyncio.get_running_loop().sock_connect(own, address)
    return await asyncio.open_connection(sock=own, limit=4096)


async def _read(reader: asyncio.StreamReader, answer: Answer, wait: float) -> None:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    answer.status = int(head[0].split()[1])
    answer.headers = {
        name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)
    }
    async for part in _parts(reader, answer.headers):
        answer.body += part
        if wait:
            await asyncio.sleep(wait)
    answer.whole = True


async def _parts(reader: asyncio.StreamReader, headers: Mapping[str, str]) -> AsyncIterator[bytes]:
    if headers.get("transfer-encoding") == "chunked":
        while size := int(await reader.readline() or b"none", 16):
            yield (await reader.readexactly(size + 2))[:-2]
        await reader.readexactly(2)
    else:
        yield await reader.readexactly(int(headers["content-length"]))
