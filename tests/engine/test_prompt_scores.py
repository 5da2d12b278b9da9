"""How likely a prompt's own tokens are: told in full however it was read, and before anything is chosen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import pytest

from offramp.engine.engine import Engine
from offramp.engine.request import Request
from offramp.evaluate.likelihood import likelihoods
from offramp.llm.forced import Forced
from offramp.types.executor import Executor, Scored, ScoreRow
from offramp.types.exits import ExitParams
from offramp.types.output import LogProbs
from tests.engine.toy_engine import EXITS, Run, make_engine, request

pytestmark = pytest.mark.usefixtures("each_executor")

PROMPT = tuple((7 * i) % 40 + 1 for i in range(30))


def asking(prompt: Sequence[int] = PROMPT, most: int = 1, echo_only: bool = False, **more: Any) -> Request:
    return replace(request(prompt, **more), prompt_logprobs=most, echo_only=echo_only)


def told(engine: Engine, number: int = 0) -> list[LogProbs]:
    scores = engine.sequences[number].prompt_scores
    assert scores.complete
    return scores.told


def check(engine: Engine, number: int = 0) -> None:
    """Against one pass over the whole text."""
    (seen,) = likelihoods(make_engine(), [Forced(PROMPT, 1)])
    first, *rest = told(engine, number)
    assert first == ()
    assert [entry[0][0] for entry in rest] == list(PROMPT[1:])
    assert [entry[0][1] for entry in rest] == pytest.approx([one.log_prob for one in seen], abs=1e-5)
    assert [entry[1][0] for entry in rest] == [one.choice for one in seen]
    assert {len(entry) for entry in rest} == {2}


def test_a_prompt_read_in_chunks() -> None:
    engine = make_engine(max_num_batched_tokens=8, max_num_seqs=8)
    run = Run(engine, [asking(), request((1, 2))])
    check(engine)
    assert run.tokens() == Run(make_engine(), [request(PROMPT)]).tokens()


class Counting:
    """An executor that notes how many rows are scored at the top in each call."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self.rows: list[int] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._executor, name)

    def score(self, boundary: int, rows: list[ScoreRow], *args: Any, **named: Any) -> list[Scored]:
        if boundary > len(EXITS):
            self.rows.append(len(rows))
        return self._executor.score(boundary, rows, *args, **named)


def test_a_prompt_found_in_the_cache_is_scored_a_step_at_a_time() -> None:
    engine = make_engine(max_num_batched_tokens=8, max_num_seqs=8)
    Run(engine, [request(PROMPT)])
    counting = Counting(engine.executor)
    engine.executor = engine.meter.executor = cast("Executor", counting)
    (number,) = engine.submit(asking())
    while engine.has_work:
        engine.step()
        engine.check_integrity()
    assert engine.sequences[number].cached_prompt_tokens == 28
    assert max(counting.rows) == 8
    check(engine, number)


def test_a_preempted_prompt_goes_on_where_it_was() -> None:
    exit = ExitParams(threshold=0.3, kv="verify")
    engine = make_engine(num_blocks=12, max_num_batched_tokens=8, max_num_seqs=2)
    run = Run(engine, [request((1, 2, 3), max_tokens=30), asking(max_tokens=10, exit=exit)])
    assert any(plan.preempt for plan in run.plans)
    check(engine, 1)
    assert run.tokens(1) == Run(make_engine(), [request(PROMPT, max_tokens=10)]).tokens()


def test_only_the_first_of_n_outputs_is_asked_and_chooses_first() -> None:
    engine = make_engine(max_num_batched_tokens=8, max_num_seqs=8)
    Run(engine, [request(PROMPT)])
    run = Run(engine, [asking(n=3, temperature=1.0, seed=1)])
    first, *others = run.numbers[0]
    check(engine, first)
    assert all(engine.sequences[number].prompt_scores.told == [()] for number in others)
    assert run.in_order[0].sequence == first


@pytest.mark.parametrize("length", [1, 2, 64])
def test_an_echo_chooses_nothing_and_may_fill_the_context(length: int) -> None:
    engine = make_engine()
    run = Run(engine, [asking([3] * length, echo_only=True, n=2)])
    assert not run.in_order
    assert [engine.sequences[number].finish_reason for number in run.numbers[0]] == ["length"] * 2
    assert len(told(engine)) == length
    assert engine.pool.num_free == engine.pool.num_blocks
