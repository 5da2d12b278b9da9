"""The engine's side without a process: what breaks off in a step, and for whom."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, cast

import pytest

from offramp import LLM, ExitParams
from offramp.engine.policies import Depth
from offramp.exits.criteria import Signals
from offramp.serve import worker
from offramp.serve.messages import Ask, Cancel, Submit, Told
from offramp.serve.worker import Worker, describe
from offramp.types.executor import Executor
from tests.models.t5_toys import save_t5
from tests.serve.engines import AtWork, Breaking, job, toy_options

PROMPT = (65, 66, 67)


@pytest.fixture
def llm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LLM]:
    monkeypatch.setenv("OFFRAMP_CACHE", str(tmp_path / "cache"))
    with LLM(**toy_options(tmp_path)) as llm:
        yield llm


@pytest.mark.parametrize("name", ["run_segment", "score"])
def test_a_step_that_breaks_off_ends_whom_it_moved(llm: LLM, name: str, capfd: pytest.CaptureFixture[str]) -> None:
    running = AtWork(llm)
    running.submit(job(PROMPT, 0, max_tokens=8, n=2), job((70, 71), 1, max_tokens=8))
    running.worker.step()
    good = running.engine.executor
    breaking = Breaking(good, name)
    running.engine.executor = running.engine.meter.executor = cast("Executor", breaking)
    while breaking.name:
        running.worker.step()
    running.engine.executor = running.engine.meter.executor = good
    broken = [piece for number in (0, 1) for piece in running.pieces(number) if piece.finish_reason == "error"]
    assert broken
    assert {piece.error for piece in broken} == {"a step of the engine broke off: MemoryError('no room')"}
    assert "MemoryError: no room" in capfd.readouterr().err
    running.submit(job(PROMPT, 2, max_tokens=8, ignore_eos=True))
    running.finish()
    assert len(running.tokens(2)) == 8


class Faulty:
    """A criterion that does not do what one has to: `say` is given how many tokens it is to judge."""

    name: ClassVar[str] = "faulty"
    needs: ClassVar[frozenset[Any]] = frozenset()
    reads_token: ClassVar[bool] = False

    def __init__(self, say: Callable[[int], Any]) -> None:
        self.say = say

    def confidence(self, rows: Sequence[Signals]) -> Any:
        return self.say(len(rows))


@pytest.mark.parametrize(
    ("say", "says"),
    [
        (lambda count: count / 0, "ZeroDivisionError('division by zero')"),
        (lambda count: [], "ValueError('the criterion said 0 confidences about 1 tokens')"),
        (lambda count: [0.5] * (count + 1), "ValueError('the criterion said 2 confidences about 1 tokens')"),
        (lambda count: ["sure"] * count, "ValueError(\"could not convert string to float: 'sure'\")"),
    ],
)
def test_a_criterion_at_fault_ends_only_those_who_brought_it(llm: LLM, say: Callable[[int], Any], says: str) -> None:
    healthy = [
        job(PROMPT, 0, max_tokens=20, ignore_eos=True),
        job((70, 71), 2, max_tokens=20, ignore_eos=True, exit=ExitParams(threshold=0.2)),
    ]
    alone = AtWork(llm)
    alone.submit(*healthy)
    alone.finish()
    running = AtWork(llm)
    running.submit(healthy[0], healthy[1], job((80,), 3, max_tokens=20, ignore_eos=True, exit="lossless"))
    running.engine.sequences[max(running.engine.sequences)].criterion = Faulty(say)
    running.finish()
    assert [running.tokens(number) for number in (0, 1)] == [alone.tokens(number) for number in (0, 1)]
    last = running.pieces(2)[-1]
    assert (last.finish_reason, len(running.tokens(2))) == ("error", 1)
    assert last.error == f"a step of the engine broke off: {says}"


def test_an_engine_that_cannot_plan_is_not_trusted(llm: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    running = AtWork(llm)
    running.submit(job(PROMPT))
    with monkeypatch.context() as patch:
        patch.setattr(Depth, "select", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            running.worker.step()
    running.worker.handle(Cancel(0))
    running.finish()


def test_chores_are_done_once_and_only_while_it_is_quiet(
    llm: LLM, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    done: list[str] = []
    at_work = Worker(
        llm, lambda message: None, chores=[lambda: done.append("one"), lambda: 1 / 0, lambda: done.append("two")]
    )
    assert at_work.patience is not None and 0 < at_work.patience <= worker.QUIET
    monkeypatch.setattr(worker, "QUIET", 0.0)
    at_work.step()
    at_work.handle(Submit(0, job(PROMPT, max_tokens=3)))
    while at_work.has_work:
        assert done == ["one"]
        at_work.step()
    at_work.step()
    at_work.step()
    assert done == ["one", "two"] and at_work.patience is None
    assert "ZeroDivisionError" in capfd.readouterr().err


def test_a_cancelled_job_is_gone_before_the_next_step(llm: LLM) -> None:
    running = AtWork(llm)
    running.submit(job(PROMPT, 0, max_tokens=50, n=3, ignore_eos=True), job((70, 71), 1, max_tokens=5, ignore_eos=True))
    running.worker.step()
    running.worker.handle(Cancel(0))
    running.worker.handle(Cancel(0))
    running.worker.handle(Cancel(77))
    assert len(running.engine.sequences) == 1
    seen = len(running.pieces(0))
    running.finish()
    assert len(running.pieces(0)) == seen and len(running.tokens(1)) == 5
    running.worker.handle(Ask(9))
    told = running.sent[-1]
    assert isinstance(told, Told) and told.number == 9
    assert (told.stats.aborted, told.stats.prompt_tokens, told.stats.running) == (3, 5, 0)


@pytest.fixture
def t5(tmp_path: Path) -> Iterator[LLM]:
    save_t5(tmp_path)
    with LLM(str(tmp_path), exits=[1, 2], profitability=False) as llm:
        yield llm


def test_an_encoder_decoder_serves_jobs_whose_prompts_are_sources(t5: LLM) -> None:
    info = describe(t5, [1, 2])
    assert (info.max_source_len, info.max_model_len) == (2048, 2048) and info.source_tokens >= 2048
    running, prompts = AtWork(t5), ((3, 4, 5, 1), (6, 7, 1))
    running.submit(*(job(prompt, i, max_tokens=8, ignore_eos=True, n=2) for i, prompt in enumerate(prompts)))
    running.worker.step()
    running.worker.handle(Ask(0))
    running.finish()
    running.worker.handle(Ask(1))
    [before, after] = [message.stats for message in running.sent if isinstance(message, Told)]
    assert before.source_used_blocks == 1 and after.source_used_blocks == 0 and after.source_total_blocks > 2
    assert after.prompt_tokens == 7 and after.cached_prompt_tokens == 0 and after.seconds["encoder"] > 0
    assert [len(running.tokens(i)) for i in (0, 1)] == [16, 16]


def test_a_source_that_breaks_off_ends_those_who_brought_it(t5: LLM, capfd: pytest.CaptureFixture[str]) -> None:
    running = AtWork(t5)
    running.submit(job((3, 4, 1), 0, max_tokens=8, ignore_eos=True))
    running.worker.step()
    good = running.engine.executor
    running.engine.executor = running.engine.meter.executor = cast("Executor", Breaking(good, "encode"))
    running.submit(job((5, 6, 1), 1, max_tokens=8, ignore_eos=True, n=2))
    running.finish()
    assert len(running.tokens(0)) == 8
    assert [piece.finish_reason for piece in running.pieces(1) if piece.finish_reason] == ["error", "length"]
    assert "MemoryError: no room" in capfd.readouterr().err
