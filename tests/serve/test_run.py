"""The jobs of one request, on an engine with little room."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import replace
from typing import Any, cast

import pytest

from offramp.errors import QueueFull
from offramp.serve.http.run import Choice, Tally, run_jobs
from offramp.serve.observe import NoMetrics
from offramp.serve.protocol import EngineClient, Job, Piece
from offramp.types.output import ExitReport
from offramp.types.sampling import SamplingParams
from tests.cli.fake import output


class Small:
    """An `EngineClient` that holds `room` outputs, and refuses the jobs `busy` so many times, as if others were first.

    Each output is one piece, whose prompt has been read before if the output is not its job's first.
    """

    def __init__(self, room: int, busy: dict[str, int] | None = None) -> None:
        self.jobs: list[Job] = []
        self._room, self._busy = room, busy or {}

    async def generate(self, job: Job) -> AsyncGenerator[Piece, None]:
        if job.sampling.n > self._room or self._busy.get(job.id):
            self._busy[job.id] = max(self._busy.get(job.id, 0) - 1, 0)
            raise QueueFull("there is no room", hint="try again later")
        self.jobs.append(job)
        self._room -= job.sampling.n
        try:
            for index in range(job.sampling.n):
                await asyncio.sleep(0)
                yield Piece(index, job.id, (1,), (2,), (None,), finish_reason="stop", report=report(job, index))
        finally:
            self._room += job.sampling.n


def report(job: Job, index: int) -> ExitReport:
    return replace(output().report, cached_prompt_tokens=2 if index == 0 else len(job.prompt))


def jobs(count: int, n: int = 1) -> list[Job]:
    return [Job(str(number), (1, 2, 3), SamplingParams(n=n)) for number in range(count)]


def run(engine: Small, jobs: list[Job], together: int) -> tuple[list[Choice], Tally]:
    tally = Tally()

    async def play() -> list[Choice]:
        return [c async for c in run_jobs(cast(EngineClient, engine), jobs, tally, cast(Any, NoMetrics()), together)]

    return asyncio.run(play()), tally


def test_no_more_outputs_are_asked_for_than_may_run_together() -> None:
    choices, tally = run(Small(room=6), jobs(9, n=3), together=7)
    assert sorted((number, piece.text) for number, piece in choices) == [(i, str(i // 3)) for i in range(27)]
    assert tally.outcome == "stop"


def test_jobs_with_more_outputs_than_that_run_one_by_one() -> None:
    assert len(run(Small(room=5), jobs(3, n=5), together=2)[0]) == 15


def test_a_request_that_has_begun_waits_where_others_were_first() -> None:
    engine = Small(room=2, busy={"2": 2, "4": 1})
    choices, _ = run(engine, jobs(6), together=2)
    assert sorted(number for number, _ in choices) == list(range(6))
    assert sorted(job.id for job in engine.jobs) == list("012345")
    assert [job.goes_on for job in engine.jobs] == [job.id not in "01" for job in engine.jobs]


def test_one_that_has_not_begun_is_told_that_the_queue_is_full() -> None:
    with pytest.raises(QueueFull):
        run(Small(room=2, busy={"0": 1, "1": 1}), jobs(4), together=2)


def test_of_outputs_that_share_a_prompt_the_first_says_what_was_cached() -> None:
    assert run(Small(room=8), jobs(2, n=4), together=8)[1].usage()["prompt_tokens_details"] == {"cached_tokens": 4}
