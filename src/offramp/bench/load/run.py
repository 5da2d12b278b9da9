"""Sending requests when they are due, at most so many at a time."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from time import perf_counter, process_time

from offramp.bench.load.client import Recorded, Target, exchange

OnDone = Callable[[int], None]
"""Told after each request how many have ended."""


@dataclass(frozen=True, slots=True)
class Load:
    """What a run came to: a record for each request, how long all took, and what this process took of the machine."""

    recorded: list[Recorded]
    seconds: float
    cpu_seconds: float


async def run_load(
    target: Target, requests: Sequence[bytes], due: Sequence[float], together: int | None, on_done: OnDone
) -> Load:
    """Send each request `due` seconds after the start, or as soon after that as fewer than `together` run."""
    room = nullcontext() if together is None else asyncio.Semaphore(together)
    done = 0

    async def one(request: bytes, at: float) -> Recorded:
        nonlocal done
        await asyncio.sleep(max(0.0, start + at - perf_counter()))
        async with room:
            recorded = await exchange(target, request)
        done += 1
        on_done(done)
        return recorded

    gc.collect()
    gc.freeze()
    start, cpu = perf_counter(), process_time()
    try:
        recorded = await asyncio.gather(*(one(*pair) for pair in zip(requests, due, strict=True)))
        return Load(list(recorded), perf_counter() - start, process_time() - cpu)
    finally:
        gc.unfreeze()
