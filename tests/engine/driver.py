"""Runs workloads with checks after every step, and says what the oracle expects of each output."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from hypothesis import currently_in_test_context, note

from offramp.config import EngineConfig
from offramp.engine.engine import Engine
from offramp.engine.plan import Admission, Advance, Plan, StepResult
from offramp.engine.request import TokenEvent
from offramp.types.executor import Executor
from tests.engine.paged import PagedExecutor
from tests.engine.workloads import Workload
from tests.oracle.generate import generate
from tests.oracle.model import Model

MAX_STEPS = 5_000


@dataclass
class Outcome:
    """What the engine did: each output's events and finish reason, by sequence number, and the plans."""

    events: dict[int, list[TokenEvent]] = field(default_factory=dict)
    reasons: dict[int, str] = field(default_factory=dict)
    plans: list[Plan] = field(default_factory=list)

    def take(self, result: StepResult) -> None:
        """Note what a step did."""
        self.plans.append(result.plan)
        for event in result.events:
            self.events.setdefault(event.sequence, []).append(event)
        self.reasons |= {ended.sequence: ended.reason for ended in result.finished}

    def tokens(self, number: int) -> list[int]:
        return [event.token for event in self.events.get(number, [])]

    def exit_layers(self, number: int) -> list[int]:
        return [event.exit_layer for event in self.events.get(number, [])]


@dataclass(frozen=True)
class Expected:
    """What an output must be; `exit_layers` is None where they may depend on the schedule."""

    tokens: list[int]
    exit_layers: list[int] | None
    reason: str


def run_workload(executor: Executor, workload: Workload, inspect: Callable[[Engine], None] | None = None) -> Outcome:
    """Run everything to its end; `check_integrity`, and `inspect` if given, after every step.

    Raises:
        AssertionError: something is wrong, or it never ends.
    """
    engine, outcome = Engine(executor, workload.config), Outcome()
    to_come = list(workload.arrivals)
    aborts: list[tuple[int, int]] = []
    with noted(outcome.plans):
        for step in range(MAX_STEPS):
            while to_come and to_come[0].step <= step:
                arrival = to_come.pop(0)
                numbers = engine.submit(arrival.request())
                aborts += [
                    (step + after, n) for n, after in zip(numbers, arrival.abort, strict=True) if after is not None
                ]
            for _, number in [due for due in aborts if due[0] == step]:
                engine.abort(number)
                outcome.reasons.setdefault(number, "abort")
            if engine.has_work:
                outcome.take(engine.step())
            engine.check_integrity()
            if inspect:
                inspect(engine)
            if not (to_come or engine.has_work):
                break
        assert not engine.has_work, f"still at work after {MAX_STEPS} steps"
        check_all_free(engine)
        for number, sequence in engine.sequences.items():
            kept = sequence.tokens[sequence.prompt_length :]
            if outcome.reasons[number] == "abort":
                kept = kept[: sequence.accepted - sequence.prompt_length]
            assert kept == outcome.tokens(number), f"output {number} is not what its events said"
    return outcome


def check_all_free(engine: Engine) -> None:
    """No block of either store is held by anybody."""
    for pool in (engine.pool, engine.scheduler.sources):
        assert pool is None or pool.num_free == pool.num_blocks, "blocks are missing at the end"


def replay_plans(executor: Executor, workload: Workload, printed: list[str]) -> Outcome:
    """Carry out printed plans on a fresh engine that was given the same requests."""
    engine, outcome = Engine(executor, workload.config), Outcome()
    for arrival in workload.arrivals:
        engine.submit(arrival.request())
    for text in printed:
        result = engine.carry_out(eval(text, {"Plan": Plan, "Admission": Admission, "Advance": Advance}))
        for event in result.events:
            outcome.events.setdefault(event.sequence, []).append(event)
    return outcome


@contextmanager
def noted(plans: list[Plan]) -> Iterator[None]:
    """Print the plans so far where the block fails; they can be carried out on a fresh engine (`replay_plans`)."""
    try:
        yield
    except Exception:
        tell = note if currently_in_test_context() else print
        tell("\n".join(["plans so far:", *map(repr, plans)]))
        raise


def expectations(model: Model, workload: Workload) -> list[Expected]:
    """What the oracle gives for each output alone, by sequence number."""
    expected = []
    for arrival in workload.arrivals:
        assert arrival.sampling.seed is not None
        for i in range(arrival.sampling.n):
            sampling = replace(arrival.sampling, seed=arrival.sampling.seed + i, n=1)
            alone = generate(model.reading(arrival.source), arrival.prompt, sampling, arrival.exit)
            tokens, layers, reason = alone.tokens, alone.exit_layers, alone.finish_reason
            stops = [k for k, t in enumerate(tokens) if arrival.stop_on and t > 0 and t % arrival.stop_on == 0]
            if stops:
                tokens, layers, reason = tokens[: stops[0] + 1], layers[: stops[0] + 1], "stop"
            drafts = arrival.exit is not None and arrival.exit.kv == "verify"
            expected.append(Expected(tokens, None if drafts else layers, reason))
    return expected


def paged_executor(model: Model, workload: Workload, **sizes: int) -> PagedExecutor:
    """One that knows what lies in every slot, with stores as small as the workload wants them unless told otherwise."""
    wanted = {
        "block_size": workload.block_size,
        "num_blocks": workload.num_blocks,
        "num_source_blocks": workload.num_source_blocks,
    }
    return PagedExecutor(model, **{**wanted, **sizes})


def alone_on(executor: Executor, workload: Workload) -> list[Expected]:
    """What an executor itself gives for each output alone, with nothing scarce, by sequence number."""
    config = EngineConfig(prefix_caching=False, profitability=False)
    expected = []
    for arrival in workload.arrivals:
        assert arrival.sampling.seed is not None
        for i in range(arrival.sampling.n):
            sampling = replace(arrival.sampling, seed=arrival.sampling.seed + i, n=1)
            engine, outcome = Engine(executor, config), Outcome()
            engine.submit(replace(arrival, sampling=sampling).request())
            while engine.has_work:
                outcome.take(engine.step())
            drafts = arrival.exit is not None and arrival.exit.kv == "verify"
            layers = None if drafts else outcome.exit_layers(0)
            expected.append(Expected(outcome.tokens(0), layers, outcome.reasons[0]))
    return expected


def check_outcome(outcome: Outcome, expected: list[Expected]) -> None:
    """Every output is what was expected of it, or the beginning of that if it was aborted."""
    with noted(outcome.plans):
        for number, wanted in enumerate(expected):
            tokens, layers = outcome.tokens(number), outcome.exit_layers(number)
            aborted = outcome.reasons[number] == "abort"
            upto = len(tokens) if aborted else len(wanted.tokens)
            assert tokens == wanted.tokens[:upto], f"output {number}: tokens"
            if wanted.exit_layers is not None:
                assert layers == wanted.exit_layers[:upto], f"output {number}: exit layers"
            if not aborted:
                assert outcome.reasons[number] == wanted.reason, f"output {number}: finish reason"
