"""The jobs of one request: their pieces in one stream, and what they came to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from itertools import accumulate
from time import perf_counter
from typing import Any

from offramp.errors import EngineDown, OfframpError, QueueFull
from offramp.serve.http.errors import OutputFailed
from offramp.serve.http.reports import merged
from offramp.serve.observe import Ended, Metrics
from offramp.serve.protocol import EngineClient, Job, Piece
from offramp.types.output import ExitReport

PAUSE = 0.05
"""Seconds after which the next job of a request is submitted again where too many waited."""

Choice = tuple[int, Piece]
"""A piece, and the number of the output it belongs to, counted over all jobs."""


@dataclass
class Tally:
    """What a request came to, so far."""

    started: float = field(default_factory=perf_counter)
    prompt_tokens: int = 0
    output_tokens: int = 0
    ttft: float | None = None
    itl: list[float] = field(default_factory=list)
    cached_tokens: int = 0
    reports: dict[int, ExitReport] = field(default_factory=dict)
    outcome: str = "cancelled"
    _merged: tuple[int, ExitReport | None] = (0, None)  # of how many reports

    @property
    def report(self) -> ExitReport | None:
        """One report over all outputs that ended."""
        if self._merged[0] < len(self.reports):
            self._merged = len(self.reports), merged(self.reports.values())
        return self._merged[1]

    def usage(self) -> dict[str, Any]:
        """OpenAI's `usage`."""
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.output_tokens,
            "total_tokens": self.prompt_tokens + self.output_tokens,
            "prompt_tokens_details": {"cached_tokens": self.cached_tokens},
        }


async def run_jobs(
    client: EngineClient, jobs: Sequence[Job], tally: Tally, metrics: Metrics, together: int
) -> AsyncGenerator[Choice, None]:
    """The pieces of all jobs as they come, at most `together` outputs at a time. Closing it cancels them.

    Raises:
        OfframpError: a job was refused or broke off; the others are cancelled.
    """
    tally.prompt_tokens = sum(len(job.prompt) for job in jobs)
    last: dict[int, float] = {}
    outputs = sum(1 if job.echo_only else job.sampling.n for job in jobs)
    metrics.started()
    try:
        pieces = _one(client, jobs[0], 0) if len(jobs) == 1 else _several(client, jobs, together)
        async with aclosing(pieces):
            async for number, piece in pieces:
                _note(tally, number, piece, last)
                outputs -= piece.finish_reason is not None
                if outputs == 0:
                    # Before the last piece goes out: whoever has it may leave at once.
                    tally.outcome = piece.finish_reason or "stop"
                yield number, piece
    except QueueFull:
        tally.outcome = "queue_full"
        raise
    except EngineDown:
        tally.outcome = "engine_down"
        raise
    except OfframpError as error:
        tally.outcome = "error" if isinstance(error, OutputFailed) else "refused"
        raise
    except Exception:
        tally.outcome = "error"
        raise
    finally:
        numbers = tally.prompt_tokens, tally.output_tokens, tally.ttft, tally.itl, perf_counter() - tally.started
        metrics.finished(Ended(tally.outcome, *numbers, tally.report))


def _note(tally: Tally, number: int, piece: Piece, last: dict[int, float]) -> None:
    """Take a piece into account.

    Raises:
        OutputFailed: the output broke off.
    """
    if piece.token_ids:
        now = perf_counter()
        if tally.ttft is None:
            tally.ttft = now - tally.started
        if number in last:
            # Tokens that come together share the time since the one before them.
            tally.itl += [(now - last[number]) / len(piece.token_ids)] * len(piece.token_ids)
        last[number] = now
        tally.output_tokens += len(piece.token_ids)
    if piece.report is not None:
        tally.reports[number] = piece.report
        if piece.index == 0:  # the others of a job have the prompt from the first
            tally.cached_tokens += piece.report.cached_prompt_tokens
    check_piece(piece)


def check_piece(piece: Piece) -> None:
    """A piece must not be the end of an output that broke off.

    Raises:
        OutputFailed: it is.
    """
    if piece.finish_reason in ("error", "abort"):
        why = piece.error or "the model gave no finite number, or every token was banned"
        raise OutputFailed(f"an output broke off: {why}")


async def _one(client: EngineClient, job: Job, first: int) -> AsyncGenerator[Choice, None]:
    async with aclosing(client.generate(job)) as pieces:
        async for piece in pieces:
            yield first + piece.index, piece


async def _several(client: EngineClient, jobs: Sequence[Job], together: int) -> AsyncGenerator[Choice, None]:
    """The pieces of several jobs, which are taken in order. Once there is one, a full queue is waited for."""
    said: asyncio.Queue[Choice | BaseException | None] = asyncio.Queue()
    firsts = accumulate((job.sampling.n for job in jobs), initial=0)
    waiting = iter(zip(jobs, firsts, strict=False))  # the last of `firsts` is no job's
    begun = False

    async def run(job: Job, first: int) -> bool:
        """Whether there was room for it."""
        nonlocal begun
        try:
            async with aclosing(_one(client, replace(job, goes_on=begun), first)) as pieces:
                async for choice in pieces:
                    begun = True
                    said.put_nowait(choice)
        except QueueFull:
            if not begun:
                raise
            return False
        return True

    async def work() -> None:
        try:
            for job, first in waiting:
                while not await run(job, first):
                    await asyncio.sleep(PAUSE)
        except Exception as error:
            said.put_nowait(error)
        else:
            said.put_nowait(None)

    most = max(1, together // max(job.sampling.n for job in jobs))
    workers = [asyncio.create_task(work()) for _ in range(min(most, len(jobs)))]
    try:
        async for choice in _until_all_ended(said, len(workers)):
            yield choice
    finally:
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)


async def _until_all_ended(said: asyncio.Queue[Choice | BaseException | None], workers: int) -> AsyncIterator[Choice]:
    while workers:
        choice = await said.get()
        if isinstance(choice, BaseException):
            raise choice
        if choice is None:
            workers -= 1
        else:
            yield choice
