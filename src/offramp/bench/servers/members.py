"""Who takes part: servers that are asked over HTTP, and offramp's engine without a server."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from time import monotonic
from typing import Any, Protocol

from offramp.bench.load.arrivals import Arrivals
from offramp.bench.load.bench import Plan, measure, served_model
from offramp.bench.load.bodies import Form
from offramp.bench.load.client import Target
from offramp.bench.load.figures import Wanted, figures
from offramp.bench.load.samples import Sample
from offramp.bench.servers.process import ServerFailed, ServerProcess
from offramp.bench.servers.settings import METRICS
from offramp.bench.worker import Worker
from offramp.errors import OfframpError

START_SECONDS = 600.0
"""What a server gets until it takes requests."""

LOOK_SECONDS, FIRST_SECONDS = 5.0, 120.0
"""How long one look for its model may take, before it is looked whether it still runs; and its first answer."""


class Member(Protocol):
    """What takes part in a round."""

    def run(self, samples: Sequence[Sample], users: int) -> tuple[dict[str, float], dict[str, Any]]:
        """Values by names of `METRICS`, and facts: `texts` of the answers, and `exit`, `cpu_seconds` and `duration`
        where they are known.

        Raises:
            OfframpError: it failed.
        """
        ...


class ServerMember:
    """A server; `extra` is what its requests say besides. It holds still except in `run`."""

    def __init__(self, process: ServerProcess, target: Target, model: str, extra: Mapping[str, Any]) -> None:
        self._process, self._target = process, target
        self._form = Form("openai", model, ignore_eos=True, extra={"temperature": 0.0, **extra})

    def run(self, samples: Sequence[Sample], users: int) -> tuple[dict[str, float], dict[str, Any]]:
        """See `Member.run`."""
        plan = Plan(Arrivals(), together=users, ready_seconds=0)
        with awake(self._process):
            load, outcomes = asyncio.run(
                measure(self._target, self._form, samples, plan, lambda done, total, text: None)
            )
            self._process.check()
        failed = next((outcome.error for outcome in outcomes if outcome.error is not None), None)
        if failed is not None:
            raise ServerFailed(f"a request failed: {failed}")
        made = figures(outcomes, load.seconds, Wanted())
        facts = {
            "texts": [outcome.text for outcome in outcomes],
            "exit": made["exit"],
            "cpu_seconds": load.cpu_seconds,
            "duration": load.seconds,
        }
        return {name: made[metric.key] for name, metric in METRICS.items()}, facts


class EngineMember:
    """Offramp's engine in a worker's process, which takes prompts as a server would; it tells throughput alone."""

    def __init__(self, worker: Worker, exit: str) -> None:
        self._worker, self._exit = worker, exit

    def run(self, samples: Sequence[Sample], users: int) -> tuple[dict[str, float], dict[str, Any]]:
        """See `Member.run`."""
        prompts, new_tokens = [sample.prompt for sample in samples], samples[0].output_tokens
        answer = self._worker.ask("generate", prompts=prompts, new_tokens=new_tokens, users=users, exit=self._exit)
        return {"throughput": answer["tokens"] / answer["seconds"]}, {"texts": answer["texts"]}


@contextmanager
def awake(process: ServerProcess) -> Iterator[None]:
    """A process that holds still goes on meanwhile."""
    process.resume()
    try:
        yield
    finally:
        process.pause()


def wait_until_ready(process: ServerProcess, target: Target, first: Sample) -> str:
    """Wait until a server that was started takes requests; its model's name.

    Raises:
        OfframpError: it ended, or does not take them in time.
    """
    end = monotonic() + START_SECONDS
    while True:
        process.check()
        try:
            model = asyncio.run(served_model(target, LOOK_SECONDS))
            form = Form("openai", model, extra={"temperature": 0.0})
            plan = Plan(ready_seconds=FIRST_SECONDS)
            asyncio.run(measure(target, form, [first], plan, lambda done, total, text: None))
            return model
        except OfframpError as error:
            process.check()
            if monotonic() > end:
                raise ServerFailed(f"it takes no requests: {error.message}{process.tail()}") from error
