"""What goes through the pipe between the server and its engine's process, and the child's end of it.

A message is a pickled value behind its length. Both ends are ours, and the pipe has no name by which anybody else could
reach it: nothing that came over a network is ever unpickled, other than as the plain values inside a `Job`.
"""

from __future__ import annotations

import pickle
import selectors
import socket
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from offramp.errors import OfframpError
from offramp.serve.protocol import Dial, EngineInfo, EngineStats, Job, Piece, Rescored

LENGTH = struct.Struct("!Q")
READ_BYTES = 1 << 18


@dataclass(frozen=True, slots=True)
class Load:
    """To the child, first of all: the keyword arguments of `LLM`, the share of jobs that it is to rescore, and a
    position of the dial that it must be able to serve."""

    options: Mapping[str, Any]
    shadow: float = 0.0
    exit: Dial = "off"


@dataclass(frozen=True, slots=True)
class Submit:
    """To the child: a job, under a number that no other job of this child has."""

    number: int
    job: Job


@dataclass(frozen=True, slots=True)
class Cancel:
    """To the child: a job whose pieces nobody wants any more."""

    number: int


@dataclass(frozen=True, slots=True)
class Ask:
    """To the child: it is to tell its statistics."""

    number: int


@dataclass(frozen=True, slots=True)
class Ready:
    """From the child: the model is loaded."""

    info: EngineInfo


@dataclass(frozen=True, slots=True)
class LoadFailed:
    """From the child: the model cannot be loaded; the child ends."""

    error: OfframpError


@dataclass(frozen=True, slots=True)
class Refused:
    """From the child: a job that does not run."""

    number: int
    error: OfframpError


@dataclass(frozen=True, slots=True)
class News:
    """From the child: what a step brought, by the job's number.

    There is a piece for each token of each stream, and pickle takes 20 microseconds for a value of a class of ours, 0.1
    for a plain tuple: so pieces travel as tuples.
    """

    pieces: tuple[tuple[int, Piece], ...]

    def __reduce__(self) -> tuple[Callable[..., News], tuple[Any, ...]]:
        return _news, tuple((number, tuple(piece)) for number, piece in self.pieces)


@dataclass(frozen=True, slots=True)
class Told:
    """From the child: the answer to `Ask`."""

    number: int
    stats: EngineStats


def _news(*plain: tuple[int, tuple[Any, ...]]) -> News:
    return News(tuple((number, Piece._make(values)) for number, values in plain))


ToChild = Load | Submit | Cancel | Ask
FromChild = Ready | LoadFailed | Refused | News | Told | Rescored


def pack(message: ToChild | FromChild) -> bytes:
    """A message as it goes through the pipe."""
    body = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
    return LENGTH.pack(len(body)) + body


def unpack(body: bytes | bytearray | memoryview) -> Any:
    """The message whose bytes, without the length, are given."""
    return pickle.loads(body)


class Link:
    """The child's end of the pipe. Sending never blocks: what the pipe does not take yet goes out with later calls."""

    def __init__(self, end: socket.socket) -> None:
        end.setblocking(False)
        self._socket = end
        self._selector = selectors.DefaultSelector()
        self._selector.register(end, selectors.EVENT_READ)
        self._coming, self._going = bytearray(), bytearray()

    def send(self, message: FromChild) -> None:
        """Put a message on its way."""
        self._going += pack(message)
        self._write()

    def receive(self, timeout: float | None) -> list[ToChild]:
        """The messages that have come; waits for one for so many seconds, or, with None, until there is one.

        Raises:
            EOFError, OSError: the other end is closed.
        """
        messages: list[ToChild] = []
        while not messages:
            self._selector.modify(self._socket, selectors.EVENT_READ | (selectors.EVENT_WRITE if self._going else 0))
            for _, events in self._selector.select(timeout):
                if events & selectors.EVENT_WRITE:
                    self._write()
                if events & selectors.EVENT_READ:
                    self._read()
            messages += self._whole()
            if timeout is not None:
                break
        return messages

    def finish(self) -> None:
        """Block until all that was sent is out, then close."""
        self._socket.setblocking(True)
        self._socket.sendall(self._going)
        self._selector.close()
        self._socket.close()

    def _write(self) -> None:
        try:
            while self._going:
                del self._going[: self._socket.send(self._going)]
        except BlockingIOError:
            pass

    def _read(self) -> None:
        part = self._socket.recv(READ_BYTES)
        if not part:
            raise EOFError
        self._coming += part

    def _whole(self) -> Iterator[ToChild]:
        while len(self._coming) >= LENGTH.size:
            end = LENGTH.size + LENGTH.unpack_from(self._coming)[0]
            if len(self._coming) < end:
                return
            body = bytes(self._coming[LENGTH.size : end])
            del self._coming[:end]
            yield unpack(body)
