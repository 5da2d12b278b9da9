"""An engine in a process of its own, asked over JSON lines; the other end is `peers/worker_loop.py`."""

from __future__ import annotations

import json
import os
import selectors
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import monotonic
from typing import Any, Protocol

from offramp.errors import OfframpError

TAIL_LINES = 3


class WorkerFailed(OfframpError):
    """A worker that refused, crashed or fell silent; the message says which and why."""


class Worker(Protocol):
    """What the benchmark needs of a worker."""

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        """Have it do something and return its answer.

        Raises:
            WorkerFailed: it refused, crashed or fell silent.
        """
        ...

    def close(self) -> None:
        """End it. May be called twice."""
        ...


class ProcessWorker:
    """A worker program run by `command`; what it prints on stderr goes to the file `log`."""

    def __init__(self, command: Sequence[str], env: Mapping[str, str], log: Path, timeout: float = 900.0) -> None:
        self._log, self._timeout = log, timeout
        self._pending = b""
        with log.open("wb") as stderr:
            try:
                self._process = subprocess.Popen(
                    list(command),
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=stderr,
                    env={**os.environ, **env},
                )
            except OSError as error:
                raise WorkerFailed(f"`{command[0]}` cannot be run: {error.strerror}") from error

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        """Have it do something and return its answer; see `Worker.ask`."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"do": do, **arguments}).encode() + b"\n")
            self._process.stdin.flush()
            line = self._line(monotonic() + self._timeout)
        except (BrokenPipeError, EOFError):
            code = self._process.wait()
            raise WorkerFailed(f"it ended with code {code}{self._tail()}") from None
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise WorkerFailed(answer["error"])
        return answer

    def close(self) -> None:
        """End the process. May be called twice."""
        process = self._process
        assert process.stdin is not None and process.stdout is not None
        try:
            process.stdin.close()
            process.wait(timeout=10)
        except (BrokenPipeError, subprocess.TimeoutExpired):
            process.kill()
            process.wait()
        finally:
            process.stdout.close()

    def _line(self, end: float) -> bytes:
        assert self._process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while b"\n" not in self._pending:
                if not selector.select(max(0.0, end - monotonic())):
                    self._process.kill()
                    raise WorkerFailed(f"it did not answer within {self._timeout:.0f} s{self._tail()}")
                part = os.read(self._process.stdout.fileno(), 1 << 16)
                if not part:
                    raise EOFError
                self._pending += part
        line, _, self._pending = self._pending.partition(b"\n")
        return line

    def _tail(self) -> str:
        lines = self._log.read_text(encoding="utf-8", errors="replace").split("\n")
        last = [line.strip() for line in lines if line.strip()][-TAIL_LINES:]
        return ": " + " / ".join(last) if last else ""
