"""What a step holds: one pass to the top where nobody is tested on the way, and one call for all who ask the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence as Seq
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from offramp.config import EngineConfig
from offramp.engine import decide
from offramp.engine.engine import Engine
from offramp.engine.plan import Plan
from offramp.engine.request import Request
from offramp.engine.sequence import Sequence
from offramp.types.executor import Scored, ScoreRow
from offramp.types.exits import ExitParams
from offramp.types.sampling import SamplingParams
from tests.engine.driver import Outcome, run_workload
from tests.engine.paged import PagedExecutor
from tests.engine.workloads import Workload, workloads
from tests.oracle.hash_model import HashModel

MODEL = HashModel()
TOP = len(MODEL.exit_layers) + 1
QUICK = settings(
    max_examples=60, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck), database=None
)
TWELVE = SamplingParams(max_tokens=12, ignore_eos=True, seed=0)


class Counting(PagedExecutor):
    """Counts the calls of `score` at each boundary."""

    def __init__(self, **sizes: Any) -> None:
        super().__init__(MODEL, **sizes)
        self.scored: Counter[int] = Counter()

    def score(self, boundary: int, rows: Seq[ScoreRow], *args: Any, **named: Any) -> list[Scored]:
        self.scored[boundary] += 1
        return super().score(boundary, rows, *args, **named)


def run(exits: Seq[ExitParams | None], **config: Any) -> tuple[Counting, list[Plan], list[decide.Test]]:
    executor, tests = Counting(block_size=4, num_blocks=64), list[decide.Test]()
    engine = Engine(executor, EngineConfig(**{"profitability": False, **config}), on_test=tests.append)
    for i, exit in enumerate(exits):
        engine.submit(Request([1, 2, 3 + i], TWELVE, exit))
    plans = []
    while engine.has_work:
        plans.append(engine.step().plan)
        engine.check_integrity()
    return executor, plans, tests


def replays(*layers: int) -> ExitParams:
    return ExitParams("replay", 1.0, options={"exit_layers": layers * 12})


@pytest.mark.parametrize("batching", ["lockstep", "compact", "depth"])
def test_with_exits_off_a_step_gives_everybody_a_token(batching: str) -> None:
    _, plans, _ = run([None] * 3, batching=batching)
    assert len(plans) == 12
    assert all(plan.to_top and plan.segment == 0 and len(plan.advance) == 3 for plan in plans)


def test_nobody_is_carried_past_a_test() -> None:
    _, plans, tests = run([None, ExitParams("never", 1.0)], batching="compact")
    assert Counter(test.signals.boundary for test in tests) == dict.fromkeys(range(1, TOP), 11)
    assert [plan.to_top for plan in plans] == [True] + [False] * 11 * TOP, "the prompts may, nothing else"


def one_by_one(plans: list[Plan]) -> list[Plan]:
    """The same plans, one segment each."""
    steps: list[Plan] = []
    for plan in plans:
        steps.append(replace(plan, number=len(steps), to_top=False))
        for segment in range(plan.segment + 1, TOP if plan.to_top else 0):
            steps.append(Plan(len(steps), segment, plan.advance))
    return steps


@QUICK
@given(workloads(MODEL, max_requests=6))
def test_a_step_to_the_top_is_its_segments_one_by_one(workload: Workload) -> None:
    def executor() -> PagedExecutor:
        return PagedExecutor(MODEL, block_size=workload.block_size, num_blocks=workload.num_blocks)

    outcome = run_workload(executor(), workload)
    engine, again = Engine(executor(), workload.config), Outcome()
    for arrival in workload.arrivals:
        engine.submit(arrival.request())
    for plan in one_by_one(outcome.plans):
        again.take(engine.carry_out(plan))
        engine.check_integrity()
    assert again.events == outcome.events


def test_equal_criteria_are_one_and_unequal_ones_share_a_call() -> None:
    layers = MODEL.exit_layers
    executor, _, tests = run([replays(layers[0])] * 2 + [replays(layers[0], layers[-1])], batching="compact")
    assert len({id(test.sequence.criterion) for test in tests}) == 2
    assert sum(test.fired for test in tests if test.signals.boundary == 1) > 2 * 11
    assert executor.scored[1] == 11, "tokens that leave together are chosen together"


def test_a_replay_goes_no_further_up_than_it_had_come() -> None:
    executor = PagedExecutor(MODEL, block_size=4, num_blocks=4)
    sequence = Sequence(0, [1, 2, 3], TWELVE, 0, executor.shape, ExitParams(kv="recompute"))
    sequence.restore([3] * TOP)
    sequence.choose(TOP, 4, None)
    sequence.advance(0, 4)
    sequence.choose(1, 5, None)
    sequence.preempt()
    assert sequence.next_rows(8) == (0, 0, 4)
    assert sequence.climbs_freely(0, 3) and not sequence.climbs_freely(0, 4)


class Broken(Counting):
    """Interrupted when it first scores."""

    def score(self, *args: Any, **named: Any) -> list[Scored]:
        if not self.scored:
            self.scored[0] += 1
            raise KeyboardInterrupt
        return super().score(*args, **named)


def test_a_prompt_interrupted_at_its_last_step_is_read_again() -> None:
    engine = Engine(Broken(block_size=4, num_blocks=4), EngineConfig(profitability=False))
    (number,) = engine.submit(Request([1, 2, 3], TWELVE, ExitParams()))
    with pytest.raises(KeyboardInterrupt):
        engine.step()
    sequence = engine.sequences[number]
    assert sequence.replaying and sequence.replay_to == [3] * TOP
    assert engine.step().plan.to_top and not sequence.replaying
