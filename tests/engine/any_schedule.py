"""Schedules that no policy would choose: any legal move, preemption anywhere, drafting switched off at any time."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from offramp.engine.engine import Engine
from offramp.engine.plan import Advance, Plan
from offramp.engine.sequence import Sequence
from offramp.types.executor import Executor
from tests.engine.driver import MAX_STEPS, Outcome, noted
from tests.engine.workloads import Workload

PREEMPTIONS = 2.0
"""Falls with the number of steps, so that replays get done: about 2 ln(steps / 20) preemptions in a run."""


def run_any_schedule(
    executor: Executor, workload: Workload, random: Random, inspect: Callable[[Engine], None] | None = None
) -> Outcome:
    """Carry out random legal plans until nothing is left. The executor's cache must hold all requests at once."""
    engine, outcome = Engine(executor, workload.config), Outcome()
    for arrival in workload.arrivals:
        engine.submit(arrival.request())
    with noted(outcome.plans):
        while engine.has_work:
            outcome.take(engine.carry_out(any_plan(engine, len(outcome.plans), random)))
            engine.check_integrity()
            if inspect:
                inspect(engine)
            assert len(outcome.plans) < MAX_STEPS, f"still at work after {MAX_STEPS} steps"
    return outcome


def any_plan(engine: Engine, number: int, random: Random) -> Plan:
    """Admit what can be admitted; else preempt somebody now and then, or encode a few sources and let a few sequences
    move a few rows in one segment."""
    admit = engine.scheduler.admissions(lambda sequence: True)
    if admit:
        return Plan(number, 0, admit=admit)
    running = engine.scheduler.running
    if random.random() < PREEMPTIONS / (number + 20):
        return Plan(number, 0, preempt=(random.choice(running).number,))
    drafting = [s.number for s in running if s.drafts]
    verify_off = (random.choice(drafting),) if drafting and random.random() < 0.01 else ()
    encode = some_sources(running, random)
    encoded = [s.source for s in encode]
    running = [s for s in running if s.source is None or s.source.encoded or s.source in encoded]
    if not running:
        return Plan(number, 0, verify_off=verify_off)
    segments = [s.next_rows(1)[0] for s in running]
    segment = random.choice(segments)
    movers = [s for s, due in zip(running, segments, strict=True) if due == segment]
    movers = random.sample(movers, random.randint(0 if encode else 1, len(movers)))
    advances = [Advance(s.number, s.next_rows(random.randint(1, 8))[2]) for s in movers]
    return Plan(number, segment, tuple(advances), verify_off=verify_off, encode=tuple(s.number for s in encode))


def some_sources(running: list[Sequence], random: Random) -> list[Sequence]:
    """A reader of some of the sources that are not encoded, of each once."""
    due = {id(s.source): s for s in random.sample(running, len(running)) if s.source and not s.source.encoded}
    return random.sample(list(due.values()), random.randint(0, len(due)))
