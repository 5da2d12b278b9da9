"""The server under test: `offramp serve` in a process of its own, its engine, what both hold, and what they tell."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic

from scripts.soak.traffic import KEY
from scripts.soak.wire import Answer, exchange, request

ENGINE = b"offramp.serve.worker"


class Failed(Exception):
    """The server does not do what it has to."""


@dataclass
class Server:
    """A server that runs; `log` is the file that has its standard error."""

    process: asyncio.subprocess.Process
    log: Path
    address: tuple[str, int] = ("127.0.0.1", 0)
    outages: list[tuple[float, float]] = field(default_factory=list)

    @classmethod
    async def start(cls, words: Sequence[str], folder: Path) -> Server:
        """Start it with these words after `offramp serve`, and wait until it is ready.

        Raises:
            Failed: it ends, or says nothing for five minutes.
        """
        (folder / "key").write_text(KEY, encoding="utf-8")
        log = folder / "server.log"
        command = [sys.executable, "-m", "offramp", "serve", *words, "--port", "0", "--log-format", "json"]
        with log.open("wb") as stream:
            process = await asyncio.create_subprocess_exec(
                *command, "--api-key-file", str(folder / "key"), stderr=stream, stdin=asyncio.subprocess.DEVNULL
            )
        server = cls(process, log)
        until = monotonic() + 300
        while monotonic() < until and process.returncode is None:
            lines = [line for line in log.read_text(encoding="utf-8").splitlines() if line.startswith("Serving ")]
            if lines:
                host, _, port = lines[0].rpartition("http://")[2].partition("/")[0].rpartition(":")
                server.address = (host, int(port))
                return server
            await asyncio.sleep(0.05)
        raise Failed(f"the server did not start:\n{log.read_text(encoding='utf-8')}")

    async def ask(self, path: str) -> Answer:
        """A GET."""
        return await exchange(self.address, request("GET", path))

    async def metrics(self) -> dict[str, float]:
        """Every number of `/metrics` by its name, with its own labels but without the model's."""
        lines = (await self.ask("/metrics")).body.decode().splitlines()
        pairs = (line.rpartition(" ") for line in lines if line and not line.startswith("#"))
        return {_short(name): float(value) for name, _, value in pairs}

    def engine(self) -> int | None:
        """The engine's process, if there is one."""
        for child in Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split():
            if ENGINE in Path(f"/proc/{child}/cmdline").read_bytes():
                return int(child)
        return None

    async def kill_engine(self) -> float:
        """Kill the engine's process; returns the seconds until requests are taken again.

        Raises:
            Failed: readiness did not go off, or not on again within two minutes.
        """
        pid = self.engine()
        if pid is None:
            raise Failed("there is no engine to kill")
        begin = monotonic()
        # Until it is known when the outage ends, it has not.
        self.outages.append((begin, float("inf")))
        os.kill(pid, signal.SIGKILL)
        seen: set[int] = set()
        while not {503, 200} <= seen:
            status = (await self.ask("/health/ready")).status
            # 200 counts once 503 has been seen: before, nobody has noticed.
            seen |= {status} if status == 503 or 503 in seen else set()
            if monotonic() - begin > 120:
                raise Failed(f"two minutes after its engine was killed the server is not ready again, but {status}")
            await asyncio.sleep(0.01)
        if self.engine() in (None, pid):
            raise Failed("the server says that it is ready, and has no new engine")
        self.outages[-1] = (begin, monotonic())
        return monotonic() - begin

    @property
    def is_out(self) -> bool:
        """Whether the engine is gone now."""
        return bool(self.outages) and self.outages[-1][1] == float("inf")

    def was_out(self, begin: float, end: float) -> bool:
        """Whether the engine was gone at some time between two others."""
        return any(begin <= until and since <= end for since, until in self.outages)

    async def stop(self) -> list[str]:
        """Tell it to end; returns what is wrong with how it ended, and with what it has logged."""
        engine = self.engine()
        self.process.send_signal(signal.SIGTERM)
        wrong = []
        try:
            code = await asyncio.wait_for(self.process.wait(), 60)
            wrong += [f"the server ended with code {code}"] if code else []
        except asyncio.TimeoutError:
            self.process.kill()
            await self.process.wait()
            wrong.append("the server did not end within 60 s of SIGTERM")
        if engine is not None and Path(f"/proc/{engine}").exists():
            wrong.append("the engine outlived its server")
        return wrong + self._faults_logged()

    def _faults_logged(self) -> list[str]:
        """Bugs, tracebacks and keys in the log."""
        text = self.log.read_text(encoding="utf-8", errors="replace")
        wrong = ["the key is in the log"] if KEY in text else []
        bugs = [line for line in text.splitlines() if '"event": "bug"' in line]
        wrong += [f"a bug was logged: {json.loads(line).get('traceback')}" for line in bugs]
        if "Traceback" in text and not bugs:
            wrong.append(f"a traceback in the log: {text[text.index('Traceback') :][:2000]}")
        return wrong


def _short(name: str) -> str:
    """`name{model_name="x",what="y"}` as `name{y}`."""
    plain, _, labels = name.partition("{")
    values = [label.partition("=")[2].strip('"}') for label in labels.split(",") if not label.startswith("model_name")]
    return f"{plain}{{{','.join(values)}}}" if any(values) else plain
