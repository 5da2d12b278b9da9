"""Encoder-decoder models: sources are encoded whole, shared by a request's outputs, and given back on every path.

What comes out is checked against the oracle by the workloads of `test_simulator` and `test_schedule_independence`.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any, cast

import pytest

from offramp.config import EngineConfig
from offramp.engine.accounting import report
from offramp.engine.engine import Engine
from offramp.engine.plan import Plan
from offramp.engine.request import Request
from offramp.types.executor import Executor
from offramp.types.exits import ExitParams
from offramp.types.sampling import SamplingParams
from tests.engine.driver import check_all_free
from tests.engine.inspector import Inspector
from tests.engine.paged import START, PagedExecutor
from tests.engine.test_engine import Interrupting, tokens_despite_interruptions
from tests.engine.toy_engine import Run
from tests.oracle.generate import generate
from tests.oracle.hash_model import HashModel

MODEL = HashModel(max_source_len=12)
FILL = ExitParams(threshold=0.4)
RECOMPUTE = ExitParams(threshold=0.4, kv="recompute", recompute_cap=3)
VERIFY = ExitParams(threshold=0.3, kv="verify", max_draft=3)
EXITS = pytest.mark.parametrize("exit", [None, FILL, RECOMPUTE, VERIFY])


def make_engine(*, block_size: int = 2, num_blocks: int = 64, num_source_blocks: int = 64, **config: Any) -> Engine:
    executor = PagedExecutor(MODEL, block_size=block_size, num_blocks=num_blocks, num_source_blocks=num_source_blocks)
    return Engine(executor, EngineConfig(**{"profitability": False, **config}))


def request(
    source: Sequence[int], exit: ExitParams | None = None, prompt: Sequence[int] = (), **sampling: Any
) -> Request:
    """A request of 12 tokens unless told otherwise, whose decoder begins with the start token."""
    params = {"max_tokens": 12, "ignore_eos": True, "seed": 0, **sampling}
    return Request(prompt, SamplingParams(**params), exit, source=source)


def alone(source: Sequence[int], prompt: Sequence[int] = (START,), **sampling: Any) -> list[int]:
    """What the oracle gives with exits off."""
    return generate(MODEL.reading(source), list(prompt), request(source, **sampling).sampling).tokens


def source_of(i: int) -> tuple[int, ...]:
    """Sources of one to twelve tokens, all different."""
    return tuple(1 + (i + j) % 12 for j in range(1 + 5 * i % 12))


@pytest.mark.parametrize("max_draft", range(1, 9))
@pytest.mark.parametrize("temperature", [0.0, 0.9])
def test_verify_equals_exits_off_in_stores_that_are_too_small(max_draft: int, temperature: float) -> None:
    exit = ExitParams(threshold=0.2, kv="verify", max_draft=max_draft)
    preempted = accepted = 0
    for batching, batch in product(("compact", "depth"), (1, 3, 8)):
        sizes: dict[str, Any] = {"num_blocks": 9, "num_source_blocks": 12, "max_num_seqs": 4}
        engine = make_engine(**sizes, max_num_batched_tokens=4, batching=batching)
        run = Run(engine, [request(source_of(i), exit, seed=i, temperature=temperature) for i in range(batch)])
        for i in range(batch):
            assert run.tokens(i) == alone(source_of(i), seed=i, temperature=temperature)
            accepted += report(engine.sequences[i]).drafts_accepted
        preempted += sum(len(plan.preempt) for plan in run.plans)
        check_all_free(engine)
    assert preempted and accepted


def test_another_source_changes_every_token() -> None:
    run = Run(make_engine(), [request((3, 4, 5)), request((3, 4, 6))])
    assert run.tokens(0) == alone((3, 4, 5)) and run.tokens(1) == alone((3, 4, 6))
    assert run.tokens(0) != run.tokens(1)


def test_the_decoder_begins_with_the_start_token_unless_it_was_given_something() -> None:
    engine = make_engine()
    run = Run(engine, [request((3, 4)), request((3, 4), prompt=(START, 7))])
    assert engine.sequences[0].tokens[:1] == [START]
    assert run.tokens(1) == alone((3, 4), (START, 7))


def test_outputs_of_one_request_share_one_encoded_source() -> None:
    engine = make_engine()
    numbers = engine.submit(request((3, 4, 5), n=3, temperature=1.0))
    sources = engine.scheduler.sources
    assert sources is not None
    encoded: list[int] = []
    most = 0
    while engine.has_work:
        encoded += engine.step().plan.encode
        engine.check_integrity()
        most = max(most, sources.num_blocks - sources.num_free)
    assert encoded == numbers[:1] and most == 2
    assert [report(engine.sequences[n]).encoded_tokens for n in numbers] == [3, 0, 0]
    for i, number in enumerate(numbers):
        assert engine.sequences[number].tokens[1:] == alone((3, 4, 5), temperature=1.0, seed=i)


def test_a_source_is_encoded_beside_the_decoder_rows_of_others() -> None:
    engine = make_engine(batching="compact")
    engine.submit(request((3, 4, 5), FILL))
    for _ in range(3):
        engine.step()
    (late,) = engine.submit(request((6, 7), FILL))
    plan = engine.step().plan
    assert plan.encode == (late,) and plan.advance


def plans_that_encode(engine: Engine, requests: Sequence[Request]) -> list[tuple[int, ...]]:
    return [plan.encode for plan in Run(engine, requests).plans if plan.encode]


@pytest.mark.parametrize(
    ("lengths", "steps"),
    [
        ((3, 3, 3), [(0, 1), (2,)]),
        ((2, 2, 2), [(0, 1, 2)]),
        ((9, 1, 1), [(0,), (1, 2)]),
        ((1, 9, 1), [(0,), (1,), (2,)]),
    ],
)
def test_a_step_encodes_as_many_tokens_as_it_may_run_rows_and_splits_no_source(
    lengths: tuple[int, ...], steps: list[tuple[int, ...]]
) -> None:
    engine = make_engine(max_num_seqs=4, max_num_batched_tokens=6)
    assert plans_that_encode(engine, [request(range(1, length + 1)) for length in lengths]) == steps


def test_in_lockstep_a_source_waits_until_the_iteration_has_ended() -> None:
    engine = make_engine(batching="lockstep")
    to_come = [request((6, i), FILL) for i in range(4)]
    engine.submit(request((3, 4, 5), ExitParams("never", 1.0)))
    late = 0
    for step in range(200):
        if to_come and step % 5 == 3:
            engine.submit(to_come.pop())
        under_way = any(not s.replaying and s.frontier[0] == s.length for s in engine.scheduler.running)
        if engine.has_work:
            plan = engine.step().plan
            assert not (plan.encode and under_way)
            late += under_way and any(s.source is not None and not s.source.encoded for s in engine.scheduler.running)
    assert late and not engine.has_work


def test_requests_whose_sources_do_not_all_fit_wait_for_each_other() -> None:
    engine = make_engine(num_source_blocks=6, max_num_seqs=8)
    sources = [tuple(range(1 + i % 3, 13)) for i in range(6)]
    run = Run(engine, [request(source, VERIFY, seed=i) for i, source in enumerate(sources)])
    for i, source in enumerate(sources):
        assert run.tokens(i) == alone(source, seed=i)
    check_all_free(engine)


@EXITS
def test_an_abort_at_any_step_gives_the_blocks_of_both_stores_back(exit: ExitParams | None) -> None:
    requests = [request((3, 4, 5), exit, n=2, temperature=1.0), request((6, 7, 8, 9), exit)]
    for stop in range(len(Run(make_engine(), requests).plans)):
        engine = make_engine()
        numbers = [number for asked in requests for number in engine.submit(asked)]
        for _ in range(stop):
            engine.step()
        for number in numbers:
            engine.abort(number)
            engine.check_integrity()
        assert not engine.has_work
        check_all_free(engine)


@pytest.mark.parametrize("preempt_at", range(1, 8))
def test_a_preemption_drops_the_source_and_encodes_it_again(preempt_at: int) -> None:
    engine = make_engine()
    (number,) = engine.submit(request((3, 4, 5), FILL))
    for _ in range(preempt_at):
        engine.step()
    engine.carry_out(Plan(preempt_at, 0, preempt=(number,)))
    check_all_free(engine)
    engine.check_integrity()
    while engine.has_work:
        engine.step()
    assert report(engine.sequences[number]).encoded_tokens == 6
    assert (
        engine.sequences[number].tokens[1:]
        == generate(MODEL.reading((3, 4, 5)), [START], request((3,)).sampling, FILL).tokens
    )


def test_a_sibling_that_is_preempted_leaves_the_source_to_the_others() -> None:
    engine = make_engine()
    first, second = engine.submit(request((3, 4, 5), n=2, temperature=1.0))
    while len(engine.scheduler.running) < 2:
        engine.step()
    engine.carry_out(Plan(9, 0, preempt=(first,)))
    engine.check_integrity()
    while engine.has_work:
        assert not engine.step().plan.encode
        engine.check_integrity()
    for i, number in enumerate((first, second)):
        assert engine.sequences[number].tokens[1:] == alone((3, 4, 5), temperature=1.0, seed=i)


@pytest.mark.parametrize(("name", "at"), [("encode", 1), ("encode", 2), ("run_segment", 3), ("score", 2)])
def test_an_interrupted_step_changes_nothing_for_those_who_go_on(name: str, at: int) -> None:
    requests = [request(source_of(i), exit, n=2, seed=i) for i, exit in enumerate((FILL, VERIFY, RECOMPUTE, None))]
    sizes = {"max_num_batched_tokens": 4, "max_num_seqs": 4}
    whole, engine = Run(make_engine(**sizes), requests), make_engine(**sizes)
    numbers = [number for asked in requests for number in engine.submit(asked)]
    broken = Interrupting(engine.executor, name, at)
    engine.executor = engine.meter.executor = cast("Executor", broken)
    tokens = tokens_despite_interruptions(engine, numbers)
    assert broken.interrupted
    assert tokens == {number: whole.tokens(number) for number in numbers}
    check_all_free(engine)


def test_a_source_that_cannot_be_encoded_blames_those_who_brought_it_and_no_row() -> None:
    engine = make_engine(batching="compact")
    (steady,) = engine.submit(request((3, 4, 5)))
    engine.step()
    broken = Interrupting(engine.executor, "encode", 1)
    engine.executor = engine.meter.executor = cast("Executor", broken)
    (faulty,) = engine.submit(request((6, 7)))
    before = list(engine.sequences[steady].frontier)
    with pytest.raises(KeyboardInterrupt):
        engine.step()
    assert engine.suspects == (faulty,)
    assert engine.sequences[steady] in engine.scheduler.running and engine.sequences[steady].frontier == before


def cached_after(engine: Engine, second: Request) -> int:
    Run(engine, [request((3, 4, 5), prompt=(START, 7, 8, 9))])
    (number,) = engine.submit(second)
    while engine.has_work:
        engine.step()
        Inspector(cast("PagedExecutor", engine.executor))(engine)
    return engine.sequences[number].cached_prompt_tokens


def test_blocks_of_the_prefix_cache_are_found_again_with_the_same_source_only() -> None:
    assert cached_after(make_engine(), request((3, 4, 5), prompt=(START, 7, 8, 9))) == 2
    assert cached_after(make_engine(), request((3, 4, 6), prompt=(START, 7, 8, 9))) == 0
    assert cached_after(make_engine(), request((3, 4), prompt=(START, 7, 8, 9))) == 0


def test_time_spent_on_sources_is_told_apart_and_prices_the_encoder() -> None:
    engine = make_engine(profitability=True)
    estimated = engine.costs.encoder.price(3)
    Run(engine, [request((3, 4, 5)), request((3, 4))])
    assert engine.meter.time.encoder > 0
    assert engine.costs.encoder.price(3) < estimated
