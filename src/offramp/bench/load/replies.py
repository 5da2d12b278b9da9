"""Recorded bytes as an answer: status, body, and server-sent events with the time at which each was complete."""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from offramp.bench.load.client import Recorded


class Unreadable(Exception):
    """Bytes that are no answer; the text says why."""


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer. `parts` is its body as it came: when, and what."""

    status: int
    reason: str
    parts: list[tuple[float, bytes]]

    @property
    def body(self) -> bytes:
        """All of it."""
        return b"".join(data for _, data in self.parts)

    def error(self) -> str | None:
        """What an answer that is no success says; None for a success."""
        if self.status == 200:
            return None
        try:
            told = json.loads(self.body)
            error = told.get("error", told)
            text = str(error.get("message") if isinstance(error, dict) else error)
        except (ValueError, AttributeError):
            text = self.body.decode(errors="replace").strip()[:200] or self.reason
        return f"{self.status}: {text}"

    def events(self) -> Iterator[tuple[float, str]]:
        """The data of server-sent events, without comments; an event is complete with the empty line behind it."""
        pending = b""
        for at, data in self.parts:
            pending = (pending + data).replace(b"\r\n", b"\n")
            *whole, pending = pending.split(b"\n\n")
            for event in whole:
                lines = [line[5:].strip() for line in event.split(b"\n") if line.startswith(b"data:")]
                if lines:
                    yield at, b"\n".join(lines).decode(errors="replace")

    def json(self) -> Any:
        """The body as JSON.

        Raises:
            Unreadable: it is none.
        """
        try:
            return json.loads(self.body)
        except ValueError:
            raise Unreadable("the answer is not JSON") from None


def read_reply(recorded: Recorded) -> Reply:
    """The answer in what was recorded.

    Raises:
        Unreadable: there is none, or not all of it.
    """
    if not recorded.arrivals:
        raise Unreadable(recorded.error or "the connection was closed without an answer")
    whole = b"".join(data for _, data in recorded.arrivals)
    head, found, _ = whole.partition(b"\r\n\r\n")
    if not found or not head.startswith(b"HTTP/1."):
        raise Unreadable("the answer is not HTTP")
    first, *lines = head.decode("latin-1").split("\r\n")
    status, _, reason = first.partition(" ")[2].partition(" ")
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    start = len(head) + len(found)
    try:
        if headers.get("transfer-encoding", "").lower() == "chunked":
            spans = list(_chunks(whole, start))
        else:
            spans = [(start, start + int(headers.get("content-length", len(whole) - start)))]
        number = int(status)
    except ValueError:
        raise Unreadable("the answer is not HTTP") from None
    if spans and spans[-1][1] > len(whole):
        raise Unreadable(recorded.error or "the answer broke off")
    ends = list(accumulate(len(data) for _, data in recorded.arrivals))
    return Reply(number, reason, [part for span in spans for part in _timed(recorded, ends, whole, span)])


def _chunks(whole: bytes, at: int) -> Iterator[tuple[int, int]]:
    """Where the data of each chunk begins and ends. A body that breaks off has one that ends beyond the bytes."""
    while True:
        line = whole.find(b"\r\n", at)
        if line < 0:
            yield at, len(whole) + 1
            return
        size = int(whole[at:line].partition(b";")[0], 16)
        if size == 0:
            return
        start = line + 2
        yield start, start + size
        at = start + size + 2


def _timed(recorded: Recorded, ends: list[int], whole: bytes, span: tuple[int, int]) -> Iterator[tuple[float, bytes]]:
    """A span of the bytes, cut where reads ended, each piece with the time of its read."""
    start, end = span
    while start < end:
        read = bisect_left(ends, start + 1)
        stop = min(end, ends[read])
        yield recorded.arrivals[read][0], whole[start:stop]
        start = stop
