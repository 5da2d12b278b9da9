"""A server in a process of its own, that holds still while others are measured."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from offramp.bench.quiet import descendants
from offramp.bench.worker import TAIL_LINES
from offramp.errors import OfframpError

END_SECONDS = 15.0
"""A server that has been told to end, and has not after so long, is killed."""


class ServerFailed(OfframpError):
    """A server that cannot be started, ended, or does not answer; the message says why."""


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port: int = listening.getsockname()[1]
        return port


class ServerProcess:
    """A server run by `command`; what it prints goes to the file `log`. It has children of its own, maybe."""

    def __init__(self, command: Sequence[str], env: Mapping[str, str], log: Path) -> None:
        self._log = log
        with log.open("wb") as output:
            try:
                self._process = subprocess.Popen(
                    list(command),
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    env={**os.environ, **env},
                )
            except OSError as error:
                raise ServerFailed(f"`{command[0]}` cannot be run: {error.strerror}") from error

    def check(self) -> None:
        """Raises ServerFailed: it has ended."""
        code = self._process.poll()
        if code is not None:
            raise ServerFailed(f"it ended with code {code}{self.tail()}")

    def pause(self) -> None:
        """Stop it and its children where they are: an idle server may still be busy waiting."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    def close(self) -> None:
        """End it and its children. May be called twice."""
        self.resume()
        family = descendants(self._process.pid)
        self._process.terminate()
        try:
            self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for pid in family - {self._process.pid}:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def tail(self) -> str:
        """The end of what it printed, to be put behind a message."""
        lines = self._log.read_text(encoding="utf-8", errors="replace").split("\n")
        last = [line.strip() for line in lines if line.strip()][-TAIL_LINES:]
        return ": " + " / ".join(last) if last else ""

    def _signal(self, number: int) -> None:
        if self._process.poll() is None:
            for pid in descendants(self._process.pid):
                with suppress(ProcessLookupError):
                    os.kill(pid, number)
