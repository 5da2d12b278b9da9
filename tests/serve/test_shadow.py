"""Shadow samples: what is counted, against plainer ways to count it, and that no job ever notices."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any, cast

import pytest

from offramp import LLM, ExitParams, SamplingParams
from offramp.calibrate.measure import Measurer
from offramp.calibrate.results import Results
from offramp.serve import shadow, worker
from offramp.serve.messages import Cancel
from offramp.serve.positions import position_of, promised
from offramp.serve.shadow import Shadow
from offramp.types.executor import Executor
from tests.serve.engines import AtWork, Breaking, job, rescored

PROMPTS = [(65, 66, 67), (70, 71), tuple(range(30, 90))]
FILL = ExitParams(threshold=0.2)


@pytest.fixture(scope="module")
def llm(options: dict[str, Any]) -> Iterator[LLM]:
    with LLM(**options) as llm:
        yield llm


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "QUIET", 0.0)


@pytest.mark.parametrize("kv", ["fill", "recompute"])
def test_the_loss_is_that_of_calibration(llm: LLM, tmp_path: Path, kv: Any) -> None:
    setting = replace(FILL, kv=kv)
    found = rescored(llm, *PROMPTS, exit=setting, max_tokens=40)
    with Results({}, tmp_path) as results:
        expected = list(Measurer(llm, results, 40).results(setting, PROMPTS))
    assert [(one.tokens, one.differ) for one in found] == [(one["tokens"], one["differ"]) for one in expected]
    assert sum(one.differ for one in found) > 0
    assert {(one.label, one.outcome, one.promised) for one in found} == {("criterion", "rescored", None)}


def test_a_sampled_output_is_compared_with_what_full_depth_draws_by_the_same_noise(llm: LLM) -> None:
    sampling = {"temperature": 0.8, "repetition_penalty": 1.3, "top_k": 50, "seed": 12, "ignore_eos": True}
    (found,) = rescored(llm, PROMPTS[0], exit=FILL, max_tokens=30, **sampling)
    one = llm.generate([PROMPTS[0]], SamplingParams(max_tokens=30, **cast(Any, sampling)), FILL)[0]
    tokens = [*PROMPTS[0], *one.token_ids]
    differ = 0
    for length in range(3, len(tokens)):
        (at_full_depth,) = llm.generate([tokens[:length]], SamplingParams(max_tokens=1, **cast(Any, sampling)))
        differ += at_full_depth.token_ids[0] != tokens[length]
    assert (found.tokens, found.differ, found.label) == (30, differ, "criterion sampled")
    assert 0 < differ < 30


SCHEMA = {"type": "object", "properties": {"a": {"enum": [1, 2, 31]}}, "required": ["a"]}


@pytest.mark.parametrize("exit", ["off", "lossless"])
@pytest.mark.parametrize(
    "sampling",
    [
        {},
        {"temperature": 1.0, "seed": 3, "presence_penalty": 1.5, "logit_bias": {80: 4.0}},
        {"json_schema": SCHEMA},
        {"n": 2, "temperature": 0.7, "seed": 1},
        {"min_tokens": 20},
        {"stop_token_ids": (80,), "max_tokens": 100},
    ],
    ids=lambda sampling: " ".join(sampling) or "greedy",
)
def test_where_full_depth_decides_nothing_differs(llm: LLM, exit: str, sampling: dict[str, Any]) -> None:
    found = rescored(llm, *PROMPTS, exit=exit, **{"max_tokens": 25, **sampling})
    assert [(one.outcome, one.position, one.promised, one.differ) for one in found] == [("rescored", exit, 0.0, 0)] * 3
    assert all(one.tokens for one in found)


def test_a_job_that_comes_ends_a_pass_and_notices_nothing(llm: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shadow, "STEP_SECONDS", 0.0)
    asked = [job(PROMPTS[2], 0, max_tokens=40, exit=FILL), job(PROMPTS[1], 1, max_tokens=20)]
    alone = AtWork(llm, shadow=1.0)
    alone.submit(*asked)
    alone.finish()
    expected = alone.rescore()

    at_work = AtWork(llm, shadow=1.0)
    at_work.submit(asked[0])
    at_work.finish()
    for _ in range(2):
        at_work.worker.step()
    assert at_work.engine.pool.num_free < at_work.engine.pool.num_blocks
    at_work.submit(asked[1])
    at_work.worker.step()
    at_work.engine.check_integrity()
    at_work.finish()
    assert at_work.tokens(1) == alone.tokens(1)
    assert sorted(at_work.rescore(), key=str) == sorted(expected, key=str)


def test_rescoring_waits_until_it_has_been_quiet(llm: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "QUIET", 50.0)
    at_work = AtWork(llm, shadow=1.0)
    assert at_work.worker.patience is None
    at_work.submit(job(PROMPTS[0], max_tokens=3))
    assert at_work.worker.patience == 0
    at_work.finish()
    assert at_work.worker.patience is not None and 40 < at_work.worker.patience <= 50


def test_jobs_are_drawn_by_chance_alone_and_one_output_stands_for_each(llm: LLM) -> None:
    at_work = AtWork(llm)
    at_work.worker._shadow = Shadow(llm, 0.5, at_work.sent.append, Random(4))
    pick = Random(4)
    drawn = [pick.random() < 0.5 for _ in range(12)]
    for i in range(12):
        at_work.submit(job((40 + i,), max_tokens=1 + i, ignore_eos=True, n=1 + i % 3))
        at_work.finish()
    assert [one.tokens for one in at_work.rescore()] == [1 + i for i in range(12) if drawn[i]]
    assert 0 < sum(drawn) < 12


def test_every_job_that_is_drawn_is_accounted_for(llm: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shadow, "MOST", 3)
    at_work = AtWork(llm, shadow=1.0)
    at_work.submit(*[job(PROMPTS[i % 2], i, max_tokens=9, exit="lossless") for i in range(5)])
    at_work.submit(job(PROMPTS[0], 5, prompt_logprobs=0, echo_only=True))
    at_work.worker.step()
    at_work.worker.handle(Cancel(1))
    at_work.finish()
    told = at_work.rescore()
    assert [one.outcome for one in told] == ["dropped", "dropped", "unfinished", "rescored", "rescored"]


def test_a_pass_that_breaks_off_costs_its_sample_only(llm: LLM, capfd: pytest.CaptureFixture[str]) -> None:
    at_work = AtWork(llm, shadow=1.0)
    at_work.submit(*[job(prompt, i, max_tokens=9, exit=FILL) for i, prompt in enumerate(PROMPTS[:2])])
    at_work.finish()
    good = at_work.engine.executor
    at_work.engine.executor = cast("Executor", Breaking(good, "run_segment"))
    at_work.worker.step()
    at_work.engine.executor = good
    assert [one.outcome for one in at_work.rescore()] == ["failed", "rescored"]
    assert "MemoryError: no room" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("dial", "position"),
    [
        ("off", "off"),
        ("lossless", "lossless"),
        (FILL, "criterion"),
        (0.02, "0.02"),
        ("0.049", "0.02"),
        (0.05, "0.05"),
        (0.001, "lossless"),
        ("task:0.07", "task:0.05"),
    ],
)
def test_positions_are_few(dial: Any, position: str) -> None:
    assert position_of(dial, ["0.02", "0.05", "task:0.05"]) == position


@pytest.mark.parametrize(
    ("position", "greedy", "repeatable", "promise"),
    [
        ("off", True, True, 0.0),
        ("lossless", False, True, 0.0),
        ("lossless", True, False, None),
        ("0.02", True, False, 0.02),
        ("0.02", False, True, None),
        ("task:0.05", True, True, None),
        ("text:0.05", True, True, None),
        ("criterion", True, True, None),
    ],
)
def test_what_a_position_promises(position: str, greedy: bool, repeatable: bool, promise: float | None) -> None:
    assert promised(position, greedy=greedy, repeatable=repeatable) == promise
