"""The soak itself: thousands of requests at once, engines killed among them, and what has to hold at the end."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from time import monotonic
from typing import Any

from scripts.soak.hostile import draw_bad
from scripts.soak.judge import BUSY, DOWN, Judge
from scripts.soak.memory import Life, resident
from scripts.soak.server import Failed, Server
from scripts.soak.traffic import AUTHORIZED, Case, Pool
from scripts.soak.wire import exchange, request

KILLS = (0.15, 0.3)
"""The engine is killed when these shares of the requests have ended; its last process then sees most of them."""

LOOKS = ("/metrics", "/info", "/health", "/health/ready", "/version", "/v1/models", "/", "/openapi.json")
IDLE = ("offramp_num_requests_running", "offramp_num_requests_waiting", "offramp_requests_in_flight")
IDLE_SECONDS = 10.0


@dataclass(frozen=True)
class Plan:
    """What is done.

    Args:
        words: after `offramp serve`; `max_num_seqs`, `max_queue` and `max_body` are among them.
        words_in_prompt: of the longest prompt of a good request.
    """

    words: Sequence[str]
    requests: int = 10_000
    concurrency: int = 64
    seed: int = 0
    max_num_seqs: int = 16
    max_queue: int = 48
    max_body: int = 2**20
    words_in_prompt: int = 80
    kills: Sequence[float] = KILLS

    def command(self) -> list[str]:
        """All words after `offramp serve`."""
        limits = {"max-num-seqs": self.max_num_seqs, "max-queue": self.max_queue, "max-body": self.max_body}
        return [*self.words, *(word for name, value in limits.items() for word in (f"--{name}", str(value)))]


@dataclass
class Result:
    """What came of it."""

    seconds: float = 0.0
    ended: int = 0
    restarts: list[float] = field(default_factory=list)
    lives: list[Life] = field(default_factory=list)
    metrics: dict[str, float] = field(default_factory=dict)
    judge: Judge = field(default_factory=Judge)
    violations: list[str] = field(default_factory=list)


class Soak:
    """One run. `say` is given a line every ten seconds."""

    def __init__(self, plan: Plan, server: Server, info: dict[str, Any], say: Callable[[str], None]) -> None:
        self._plan, self._server, self._info, self._say = plan, server, info, say
        exact, others = dials(info["engine"])
        self._pool = Pool(plan.seed, exact, others, plan.words_in_prompt)
        self._numbers = iter(range(plan.requests))
        self.result = Result(lives=[Life("server")])
        self._begin = monotonic()

    async def run(self) -> Result:
        """Send everything, and look at what is left behind.

        Raises:
            Failed: the server does not come back.
        """
        result, plan = self.result, self._plan
        watching = [asyncio.create_task(work()) for work in (self._watch, self._tell)]
        killing = asyncio.create_task(self._kill())
        try:
            workers = [asyncio.create_task(self._work()) for _ in range(plan.concurrency)]
            await asyncio.gather(*workers)
            await killing
        finally:
            for task in (*watching, killing):
                task.cancel()
            await asyncio.gather(*watching, killing, return_exceptions=True)
        result.seconds = monotonic() - self._begin
        result.violations += result.judge.violations
        result.violations += await self._leaks()
        result.violations += [fault for life in result.lives if (fault := life.fault())]
        return result

    async def _work(self) -> None:
        for number in self._numbers:
            rng = Random(f"{self._plan.seed}:{number}")
            case = self._draw(rng)
            begin = monotonic()
            answer = await exchange(self._server.address, case.sent, case.manner, case.patience)
            outcome = self.result.judge.judge(case, answer, self._server.was_out(begin, monotonic()))
            self.result.ended += 1
            # Who is told to come back later does, though sooner than asked.
            await asyncio.sleep({BUSY: rng.random(), DOWN: 3.0}.get(outcome, 0.0))

    def _draw(self, rng: Random) -> Case:
        share, engine, plan = rng.random(), self._info["engine"], self._plan
        if share < 0.04:
            path = rng.choice(LOOKS)
            allowed = ("200", "503 engine_down") if path == "/health/ready" else ("200",)
            return Case("look", request("GET", path, headers=AUTHORIZED), allowed)
        if share < 0.24:
            most = plan.max_num_seqs + plan.max_queue
            return draw_bad(rng, engine["max_model_len"], engine["vocab_size"], most, plan.max_body)
        return self._pool.draw(rng)

    async def _kill(self) -> None:
        for share in self._plan.kills:
            while self.result.ended < share * self._plan.requests:
                await asyncio.sleep(0.02)
            seconds = await self._server.kill_engine()
            self.result.restarts.append(seconds)
            self._say(f"killed the engine; requests are taken again after {seconds:.2f} s")

    async def _watch(self) -> None:
        """Look at the memory of both processes once a second, at first more often."""
        pid: int | None = None
        while True:
            engine = self._server.engine()
            if engine != pid and engine is not None:
                pid = engine
                self.result.lives.append(Life(f"engine {len(self.result.lives)}"))
            both = [(self._server.process.pid, self.result.lives[0])]
            both += [(pid, self.result.lives[-1])] if pid is not None else []
            for number, life in both:
                # Loading is no part of what a process holds while it works.
                if not self._server.is_out and (held := resident(number)) is not None:
                    life.samples.append((self.result.ended, held))
            await asyncio.sleep(0.1 if monotonic() - self._begin < 30 else 1.0)

    async def _tell(self) -> None:
        while True:
            await asyncio.sleep(10)
            with contextlib.suppress(Exception):
                now, result = await self._server.metrics(), self.result
                held = " / ".join(f"{life.samples[-1][1]:.0f}" for life in (result.lives[0], result.lives[-1]))
                self._say(
                    f"{monotonic() - self._begin:5.0f} s: {result.ended} of {self._plan.requests} ended, "
                    f"{now[IDLE[0]]:.0f} run, {now[IDLE[1]]:.0f} wait, "
                    f"{now['offramp_kv_cache_usage_ratio']:.0%} of the cache, {held} MiB in server / engine, "
                    f"{len(result.judge.violations)} wrong"
                )

    async def _leaks(self) -> list[str]:
        """What is still held when nothing is asked for any more."""
        until = monotonic() + IDLE_SECONDS
        while True:
            self.result.metrics = now = await self._server.metrics()
            left = {name: now.get(name) for name in (*IDLE, "offramp_kv_cache_usage_ratio") if now.get(name) != 0}
            if not left or monotonic() > until:
                break
            await asyncio.sleep(0.1)
        wrong = [f"{name} is {value} when all has ended" for name, value in left.items()]
        told = now.get("offramp_engine_restarts_total")
        if told != len(self._plan.kills):
            wrong.append(f"the engine was started again {told} times, and killed {len(self._plan.kills)} times")
        return wrong


def dials(engine: dict[str, Any]) -> tuple[list[Any], list[Any]]:
    """Positions of the dial at which outputs are those of full depth, and others."""
    by_hand = {"criterion": "max_prob", "threshold": 0.4}
    exact: list[Any] = ["off", "lossless", {**by_hand, "kv": "verify"}]
    others: list[Any] = [{**by_hand, "kv": "fill"}, {**by_hand, "kv": "recompute"}]
    for position, kv in engine["risks"].items():
        (exact if kv == "verify" else others).append({"risk": position})
    return exact, others


async def soak(plan: Plan, folder: Path, say: Callable[[str], None] = print) -> Result:
    """Run a soak against a server of its own; `folder` gets its log.

    Raises:
        Failed: the server does not start, or does not come back.
    """
    server = await Server.start(plan.command(), folder)
    try:
        info = json.loads((await server.ask("/info")).body)
        say(f"serving at {server.address[0]}:{server.address[1]}, {info['engine']['kv_tokens']} KV tokens")
        run = Soak(plan, server, info, say)
        result = await run.run()
    except BaseException:
        server.process.kill()
        await server.process.wait()
        raise
    result.violations += await server.stop()
    return result


__all__ = ["Failed", "Plan", "Result", "soak"]
