"""The engine's promises that need no oracle: siblings, stops, aborts, accounting, replayed plans."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
import pytest

from offramp.engine.accounting import report
from offramp.engine.engine import Engine
from offramp.engine.plan import Admission, Advance, Plan
from offramp.types.executor import Executor, Scored, ScoreRow
from offramp.types.exits import ExitParams
from tests.engine.toy_engine import EXITS, T5_WEIGHTS, WEIGHTS, Chosen, Run, make_engine, request

pytestmark = pytest.mark.usefixtures("each_model")

FILL = ExitParams(threshold=0.35)
VERIFY = ExitParams(threshold=0.3, kv="verify", max_draft=3)
RECOMPUTE = ExitParams(threshold=0.35, kv="recompute", recompute_cap=3)


def test_siblings_share_the_prompt_and_equal_requests_with_their_seeds() -> None:
    engine = make_engine(prefix_caching=False)
    run = Run(engine, [request((1, 2, 3, 4, 5, 6), n=3, temperature=1.0, seed=10)])
    for i, number in enumerate(run.numbers[0]):
        alone = Run(make_engine(), [request((1, 2, 3, 4, 5, 6), temperature=1.0, seed=10 + i)])
        assert run.tokens(number) == alone.tokens()
    assert [engine.sequences[n].cached_prompt_tokens for n in run.numbers[0]] == [0, 6, 6]


def test_siblings_survive_the_abort_of_the_first() -> None:
    engine = make_engine()
    first, second = engine.submit(request((1, 2, 3), n=2, temperature=1.0, seed=3))
    engine.abort(first)
    engine.check_integrity()
    while engine.has_work:
        engine.step()
        engine.check_integrity()
    assert engine.sequences[second].finish_reason == "length"
    assert engine.pool.num_free == engine.pool.num_blocks


@pytest.mark.parametrize("exit", [None, FILL, RECOMPUTE, VERIFY])
def test_an_abort_at_any_step_gives_all_blocks_back(exit: ExitParams | None) -> None:
    steps = len(Run(make_engine(), [request(exit=exit), request((9, 8), exit)]).plans)
    for stop in range(steps):
        engine = make_engine()
        (first,), (second,) = engine.submit(request(exit=exit)), engine.submit(request((9, 8), exit))
        for _ in range(stop):
            engine.step()
        engine.abort(first)
        engine.check_integrity()
        engine.abort(second)
        engine.check_integrity()
        assert not engine.has_work and engine.pool.num_free == engine.pool.num_blocks


@pytest.mark.parametrize("exit", [None, FILL, RECOMPUTE, VERIFY])
def test_a_stop_token_ends_the_output_with_it(exit: ExitParams | None) -> None:
    whole = Run(make_engine(), [request(exit=exit)]).tokens()
    stop = whole[4]
    run = Run(make_engine(), [request(exit=exit, stop_token_ids=[stop])])
    assert run.tokens() == whole[: whole.index(stop) + 1]
    assert run.events[0][-1].finish_reason == "stop"


@pytest.mark.parametrize("exit", [None, FILL, RECOMPUTE, VERIFY])
def test_a_stop_check_ends_the_output_whatever_was_drafted_or_accepted_beyond(exit: ExitParams | None) -> None:
    def stop_after(count: int) -> Callable[[int], bool]:
        seen: list[int] = []

        def check(token: int) -> bool:
            seen.append(token)
            return len(seen) == count

        return check

    whole = Run(make_engine(), [request(exit=exit)]).tokens()
    for count in range(1, len(whole)):
        engine = make_engine()
        run = Run(engine, [request(exit=exit, stop_checks=[stop_after(count)])])
        assert run.tokens() == whole[:count]
        assert len(report(engine.sequences[0]).layers_run) == count


def test_end_of_sequence_is_banned_before_min_tokens() -> None:
    run = Run(make_engine(), [request(ignore_eos=False, logit_bias={0: 100.0}, min_tokens=5)])
    assert 0 not in run.tokens()[:5] and run.tokens()[5:] == [0]


@pytest.mark.parametrize("exit", [None, FILL, RECOMPUTE, VERIFY])
def test_layers_run_filled_and_skipped_add_up_to_the_depth_for_every_token(exit: ExitParams | None) -> None:
    engine = make_engine(num_blocks=6, max_num_seqs=3)
    run = Run(engine, [request((i, i + 1), exit, max_tokens=15) for i in range(1, 5)])
    for (number,) in run.numbers:
        told = report(engine.sequences[number])
        parts = list(zip(told.layers_run, told.layers_filled, told.layers_skipped, strict=True))
        assert len(parts) == 15 and all(sum(p) == 8 and min(p) >= 0 for p in parts)
        assert sum(told.exit_histogram.values()) == 15
        assert told.mean_exit_layer == pytest.approx(sum(run.exit_layers(number)) / 15)


def test_exits_off_runs_everything_once() -> None:
    engine = make_engine()
    Run(engine, [request()])
    told = report(engine.sequences[0])
    assert set(told.layers_run) == {8} and told.top_passes == 11 and told.replayed_tokens == 0


def test_fill_accounts_for_what_was_passed_and_what_never_had_to_be() -> None:
    engine = make_engine()
    exit = ExitParams(criterion="replay", threshold=1, options={"exit_layers": [8, 2, 4, 8, 2, 2]})
    Run(engine, [request(exit=exit, max_tokens=6)])
    told = report(engine.sequences[0])
    assert told.layers_run == (8, 2, 4, 8, 2, 2)
    assert told.layers_filled == (0, 6, 4, 0, 0, 0)
    assert told.layers_skipped == (0, 0, 0, 0, 6, 6)


def test_recompute_forces_a_full_pass_after_its_cap() -> None:
    exit = ExitParams(threshold=0.0, kv="recompute", recompute_cap=3)
    run = Run(make_engine(), [request(exit=exit)])
    assert run.exit_layers() == [8, 2, 2, 2] * 3


def test_verify_reports_drafts_and_what_became_of_them() -> None:
    engine = make_engine()
    run = Run(engine, [request(exit=VERIFY, max_tokens=40)])
    told = report(engine.sequences[0])
    assert 0 < told.drafts_accepted <= told.drafts_proposed
    assert told.drafts_accepted == sum(layer in EXITS for layer in run.exit_layers())
    assert set(told.layers_run) <= {2, 4, 6, 8} and told.layers_filled == (0,) * 40


@pytest.mark.parametrize("batching", ["lockstep", "compact", "depth"])
def test_printed_plans_repeat_a_run(batching: str) -> None:
    requests = [request((i, 2, 3), FILL, temperature=0.9, seed=i, max_tokens=10) for i in range(1, 6)]
    sizes: dict[str, Any] = {"num_blocks": 6, "max_num_seqs": 4, "batching": batching, "max_num_batched_tokens": 5}
    first = Run(make_engine(**sizes), requests)
    printed = repr(first.plans)
    assert any(plan.preempt for plan in first.plans)
    engine = make_engine(**sizes)
    for r in requests:
        engine.submit(r)
    plans = eval(printed, {"Plan": Plan, "Advance": Advance, "Admission": Admission})
    events = [event for plan in plans for event in engine.carry_out(plan).events]
    assert events == first.in_order


def test_a_sibling_that_shares_the_prompt_accounts_for_its_first_token() -> None:
    engine = make_engine()
    run = Run(engine, [request((1, 2, 3), FILL, n=2, temperature=1.0, seed=5)])
    for number in run.numbers[0]:
        assert report(engine.sequences[number]).layers_run[0] == 8


def test_drafts_behind_the_end_were_not_accepted() -> None:
    calls = iter(range(100))
    engine = make_engine()
    always = ExitParams(threshold=0.0, kv="verify", max_draft=8)
    Run(engine, [request(exit=always, stop_checks=[lambda _: next(calls) == 2])])
    told = report(engine.sequences[0])
    assert told.drafts_accepted == sum(count for layer, count in told.exit_histogram.items() if layer < 8)


def test_lockstep_fills_before_its_iteration_ends() -> None:
    engine = make_engine(batching="lockstep")
    (number,) = engine.submit(request(exit=ExitParams(threshold=0.0)))
    sequence = engine.sequences[number]
    while engine.has_work:
        for event in engine.step().events:
            assert event.finish_reason or sequence.frontier == [event.output_index + len((5, 6, 7))] * 4
    assert set(report(sequence).layers_filled) == {0, 6}


class Interrupting:
    """An executor whose calls of one kind are interrupted half-way, once, at a given call."""

    def __init__(self, executor: Executor, name: str, at: int) -> None:
        self._executor, self._name, self._left = executor, name, at
        self.interrupted = False

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._executor, name)
        if name != self._name:
            return method

        def call(*args: Any, **named: Any) -> Any:
            self._left -= 1
            if self._left == 0:
                self.interrupted = True
                raise KeyboardInterrupt
            return method(*args, **named)

        return call


def tokens_despite_interruptions(engine: Engine, numbers: Sequence[int]) -> dict[int, list[int]]:
    """What comes of some outputs when every step that is interrupted is done again."""
    tokens: dict[int, list[int]] = {number: [] for number in numbers}
    while engine.has_work:
        try:
            events = engine.step().events
        except KeyboardInterrupt:
            assert engine.suspects
            engine.check_integrity()
            continue
        for event in events:
            tokens[event.sequence].append(event.token)
    return tokens


CALLS = [(name, at) for name in ("run_segment", "pass_tokens", "score", "copy_blocks") for at in (1, 2, 5)]


@pytest.mark.parametrize(("name", "at"), CALLS[:-1])
def test_an_interrupted_step_changes_nothing_for_those_who_go_on(name: str, at: int) -> None:
    requests = [
        request((1, 2, 3), FILL, n=3, temperature=0.9, seed=1),
        request((4, 5), VERIFY, temperature=0.9, seed=2, n=2),
        request((6,), RECOMPUTE),
    ]
    whole = Run(make_engine(), requests)
    engine = make_engine()
    numbers = [n for r in requests for n in engine.submit(r)]
    broken = Interrupting(engine.executor, name, at)
    engine.executor = engine.meter.executor = cast("Executor", broken)
    tokens = tokens_despite_interruptions(engine, numbers)
    assert broken.interrupted
    assert tokens == {n: whole.tokens(n) for n in numbers}


class Failing:
    """An executor whose top chooses nothing from a position on."""

    def __init__(self, executor: Executor, position: int) -> None:
        self._executor, self._position = executor, position

    def __getattr__(self, name: str) -> Any:
        return getattr(self._executor, name)

    def score(self, boundary: int, rows: list[ScoreRow], *args: Any, **named: Any) -> list[Scored]:
        scores = self._executor.score(boundary, rows, *args, **named)
        if boundary <= len(EXITS):
            return scores
        return [Scored(None, {}) if r.position >= self._position else s for r, s in zip(rows, scores, strict=True)]


def test_what_was_accepted_before_a_failure_is_output_the_same_under_verify() -> None:
    exits = [ExitParams(threshold=0.0, kv="verify", max_draft=n) for n in (1, 2, 3, 5, 8)]
    for exit in (None, *exits):
        engine = make_engine()
        engine.executor = engine.meter.executor = cast("Executor", Failing(engine.executor, position=8))
        run = Run(engine, [request(exit=exit)])
        assert run.tokens() == Run(make_engine(), [request()]).tokens()[:6]
        assert engine.sequences[0].finish_reason == "error"
        assert len(report(engine.sequences[0]).layers_run) == 6


def test_logprobs_come_from_the_distribution_that_chose() -> None:
    run = Run(make_engine(), [request(logprobs=2, exit=VERIFY), request(logprobs=2)])
    for one, two in zip(run.events[0], run.events[1], strict=True):
        assert one.logprobs is not None and two.logprobs is not None
        assert one.logprobs[0][0] == one.token and len(one.logprobs) == 3
        assert [p for _, p in one.logprobs] == pytest.approx([p for _, p in two.logprobs])


@pytest.mark.parametrize("exit", [None, FILL, RECOMPUTE, VERIFY])
def test_a_request_whose_numbers_are_not_finite_fails_alone(exit: ExitParams | None) -> None:
    poison = 47
    plain, name = (T5_WEIGHTS, "shared.weight") if Chosen.kind == "t5" else (WEIGHTS, "model.embed_tokens.weight")
    embedding = np.array(plain[name])
    embedding[poison] = np.nan
    weights = {**plain, name: embedding}
    never: dict[str, Any] = {"logit_bias": {poison: -100.0}}
    healthy = [request((i, i + 1), exit, temperature=0.7, seed=i, **never) for i in range(1, 4)]
    alone = Run(make_engine(), healthy)
    engine = make_engine(weights=weights)
    run = Run(engine, [*healthy, request((3, poison, 4), exit)])
    assert [run.tokens(i) for i in range(3)] == [alone.tokens(i) for i in range(3)]
    assert engine.sequences[3].finish_reason == "error" and run.tokens(3) == []
    assert engine.pool.num_free == engine.pool.num_blocks


def test_a_stop_check_that_raises_ends_its_own_sequence() -> None:
    def raises(token: int) -> bool:
        raise ZeroDivisionError("no text")

    others = [request((1, 2, 3), VERIFY), request((4, 5), FILL)]
    alone = Run(make_engine(), others)
    engine = make_engine()
    run = Run(engine, [others[0], request((6, 7), VERIFY, stop_checks=[raises]), others[1]])
    assert [run.tokens(0), run.tokens(2)] == [alone.tokens(0), alone.tokens(1)]
    broken = engine.sequences[1]
    assert (broken.finish_reason, len(run.tokens(1))) == ("error", 1)
    assert broken.fault == "a stop check broke off: ZeroDivisionError('no text')"
