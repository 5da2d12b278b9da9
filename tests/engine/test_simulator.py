"""Scheduler, frontiers and block accounting, step by step, on an executor that knows what lies in every slot.

The model is made of hashes: one K or V that is not exactly the right one changes everything chosen after it.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from offramp.config import EngineConfig
from offramp.engine.engine import Engine
from offramp.engine.plan import Plan
from offramp.engine.request import Request
from offramp.engine.sequence import Sequence
from offramp.types.executor import SeqRows
from offramp.types.exits import ExitParams
from offramp.types.sampling import SamplingParams
from tests.engine.any_schedule import run_any_schedule
from tests.engine.driver import Outcome, check_outcome, expectations, paged_executor, run_workload
from tests.engine.inspector import Inspector
from tests.engine.paged import PagedExecutor
from tests.engine.workloads import Arrival, Workload, fixed_batches, workloads
from tests.oracle.hash_model import HashModel

MODEL = HashModel()
WITH_ENCODER = HashModel(max_source_len=10)
MODELS = pytest.mark.parametrize("model", [MODEL, WITH_ENCODER], ids=["decoder", "encoder-decoder"])
QUICK = settings(
    max_examples=80, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck), database=None
)
FULL = settings(QUICK, max_examples=600, derandomize=False)


def check_workload(model: HashModel, workload: Workload) -> None:
    executor = paged_executor(model, workload)
    check_outcome(run_workload(executor, workload, Inspector(executor)), expectations(model, workload))


@MODELS
@QUICK
@given(st.data())
def test_every_slot_is_right_after_every_step(model: HashModel, data: st.DataObject) -> None:
    check_workload(model, data.draw(workloads(model)))


@pytest.mark.full
@MODELS
@FULL
@given(st.data())
def test_every_slot_is_right_after_every_step_of_many_more_workloads(model: HashModel, data: st.DataObject) -> None:
    check_workload(model, data.draw(workloads(model)))


def check_any_schedule(model: HashModel, workload: Workload, seed: int) -> None:
    most = 40 * model.max_model_len
    executor = paged_executor(model, workload, num_blocks=most, num_source_blocks=most)
    outcome = run_any_schedule(executor, workload, Random(seed), Inspector(executor))
    check_outcome(outcome, expectations(model, workload))


@MODELS
@QUICK
@given(st.data(), st.integers(0, 1000))
def test_any_legal_schedule_gives_the_same_outputs(model: HashModel, data: st.DataObject, seed: int) -> None:
    check_any_schedule(model, data.draw(workloads(model, max_requests=5)), seed)


def test_a_sibling_left_alone_with_a_cached_block_does_not_write_into_it() -> None:
    """Found by the test below: the sibling that filled and registered the shared block ended first."""

    def arrival(prompt: list[int], exit: ExitParams, max_tokens: int, n: int = 1) -> Arrival:
        return Arrival(prompt, SamplingParams(max_tokens=max_tokens, seed=0, n=n), exit, 0, (None,) * n, 0)

    fill = ExitParams(threshold=0.0, max_draft=1, recompute_cap=1)
    arrivals = [
        arrival([1], ExitParams(threshold=0.0, kv="verify", max_draft=1, recompute_cap=1), 8),
        arrival([1], fill, 1),
        arrival([1, 1, 1], fill, 1),
        arrival([1, 1, 1, 1], ExitParams(threshold=0.0, min_layer=4, kv="recompute", recompute_cap=2), 7, n=3),
        arrival([1], fill, 1),
    ]
    config = EngineConfig(batching="compact", max_num_seqs=3, max_num_batched_tokens=3, profitability=False)
    for seed in range(40):
        check_any_schedule(MODEL, Workload(arrivals, config, block_size=3, spare_blocks=0, max_model_len=64), seed)


@pytest.mark.full
@MODELS
@FULL
@given(st.data(), st.integers(0, 1000))
def test_many_more_legal_schedules_give_the_same_outputs(model: HashModel, data: st.DataObject, seed: int) -> None:
    check_any_schedule(model, data.draw(workloads(model, max_requests=5)), seed)


@MODELS
@pytest.mark.parametrize("kv", ["fill", "recompute", "verify"])
@pytest.mark.parametrize("criterion", ["max_prob", "patience"])
def test_a_request_preempted_after_any_step_goes_on_as_if_it_had_not_been(
    model: HashModel, criterion: str, kv: str
) -> None:
    exit = ExitParams.from_dict({"criterion": criterion, "threshold": 0.6, "kv": kv})
    sampling = SamplingParams(max_tokens=12, ignore_eos=True, seed=0)
    arrival = Arrival([1, 2, 3], sampling, exit, source=(4, 5, 6) if model.max_source_len else ())
    workload = Workload([arrival], EngineConfig(profitability=False), 2, 0, model.max_model_len)
    expected = expectations(model, workload)
    for preempt_at in count():
        executor = paged_executor(model, workload)
        engine, outcome = Engine(executor, workload.config), Outcome(reasons={0: "length"})
        engine.submit(arrival.request())
        num_steps = 0
        while engine.has_work:
            if num_steps == preempt_at and engine.scheduler.running:
                engine.carry_out(Plan(num_steps, 0, preempt=(0,)))
            outcome.events.setdefault(0, []).extend(engine.step().events)
            Inspector(executor)(engine)
            num_steps += 1
        check_outcome(outcome, expected)
        if num_steps <= preempt_at:
            break
    assert preempt_at > 12, "a run of twelve tokens has more steps than that"


@MODELS
@settings(QUICK, max_examples=30)
@given(st.data())
def test_every_slot_is_right_in_lockstep(model: HashModel, data: st.DataObject) -> None:
    workload = data.draw(fixed_batches(model))
    executor = paged_executor(model, workload)
    outcome = run_workload(executor, workload, Inspector(executor))
    assert "abort" not in outcome.reasons.values() and len(outcome.reasons) == len(workload.arrivals)


def run_one(executor: PagedExecutor, request: Request, inspect: Callable[[Engine], None]) -> None:
    engine = Engine(executor, EngineConfig(profitability=False))
    engine.submit(request)
    while engine.has_work:
        engine.step()
        inspect(engine)


def eager_fill() -> Request:
    sampling = SamplingParams(max_tokens=24, ignore_eos=True, seed=0)
    return Request([1, 2, 3], sampling, ExitParams("replay", 1.0, options={"exit_layers": (5, 5, 1, 2, 5, 5, 1)}))


def test_a_block_that_holds_anything_filled_is_never_found() -> None:
    executor = PagedExecutor(MODEL, block_size=2, num_blocks=64)
    found: set[tuple[int, ...]] = set()

    def inspect(engine: Engine) -> None:
        Inspector(executor)(engine)
        found.update(tokens for _, tokens in engine.pool.cached_blocks().values())

    run_one(executor, eager_fill(), inspect)
    assert len(found) == 2, "tokens 0..3 are exact; the token at position 4 is the first to leave early"


@pytest.mark.parametrize("too_long", [lambda s: s.length, lambda s: (s.first_exit or s.length) + 2])
def test_a_wrong_exact_length_is_noticed(monkeypatch: pytest.MonkeyPatch, too_long: Callable[[Sequence], int]) -> None:
    monkeypatch.setattr(Sequence, "exact_length", property(too_long))
    executor = PagedExecutor(MODEL, block_size=2, num_blocks=64)
    with pytest.raises(AssertionError, match="holds inexact KV"):
        run_one(executor, eager_fill(), Inspector(executor))


def test_the_executor_refuses_a_token_of_another_history() -> None:
    executor = PagedExecutor(MODEL, block_size=2, num_blocks=4)
    executor.run_segment(0, [SeqRows([0, 1], [5, 6], [0]), SeqRows([0, 1], [7, 6], [1])])
    executor.run_segment(0, [SeqRows([2], [8], [0, 2])])
    with pytest.raises(AssertionError, match="another history"):
        executor.run_segment(1, [SeqRows([2], [], [1, 2])])


def test_the_executor_refuses_to_read_what_was_not_written() -> None:
    executor = PagedExecutor(MODEL, block_size=2, num_blocks=4)
    executor.run_segment(0, [SeqRows([0, 1], [5, 6], [0])])
    with pytest.raises(AssertionError, match="read and was not written"):
        executor.run_segment(1, [SeqRows([1], [], [0])])
