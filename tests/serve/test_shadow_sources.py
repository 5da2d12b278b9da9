"""Shadow samples of an encoder-decoder: the pass reads the source that the output was made from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import torch

from offramp import LLM, ExitParams, SamplingParams
from offramp.serve import shadow, worker
from offramp.types.executor import Executor
from tests.models.t5_toys import save_t5
from tests.serve.engines import AtWork, Breaking, job, rescored

SOURCES = [(3, 4, 5, 1), (6, 1), (7, 7, 8, 9, 10, 1), tuple(range(3, 40))]
EARLY = ExitParams("fixed", 1.0, options={"layer": 2})
EXECUTORS = [{"executor": "torch", "dtype": "float64"}, {"executor": "native", "dtype": "float32"}]
FREE: dict[str, Any] = {"max_tokens": 24, "ignore_eos": True}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    folder = tmp_path_factory.mktemp("t5")
    return folder, save_t5(folder, untied=True, vocab_size=64).double().eval()


@pytest.fixture(params=EXECUTORS, ids=lambda options: options["executor"])
def llm(
    model: tuple[Path, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Iterator[LLM]:
    monkeypatch.setenv("OFFRAMP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(worker, "QUIET", 0.0)
    options: dict[str, Any] = {"exits": [1, 2], "profitability": False, **request.param}
    with LLM(str(model[0]), max_num_seqs=4, max_num_batched_tokens=4, **options) as llm:
        yield llm


def test_what_differs_is_what_transformers_would_have_chosen_otherwise(llm: LLM, model: tuple[Path, Any]) -> None:
    found = rescored(llm, *SOURCES, exit=EARLY, **FREE)
    expected = []
    for source, output in zip(SOURCES, llm.generate(SOURCES, SamplingParams(**FREE), EARLY), strict=True):
        given = torch.tensor([[0, *output.token_ids[:-1]]])
        with torch.no_grad():
            chosen = model[1](torch.tensor([source]), decoder_input_ids=given).logits[0].argmax(-1).tolist()
        differ = sum(a != b for a, b in zip(output.token_ids, chosen, strict=True))
        expected.append(("criterion", "rescored", 24, differ))
    assert [(one.position, one.outcome, one.tokens, one.differ) for one in found] == expected
    assert all(one.differ for one in found)


@pytest.mark.parametrize("exit", ["off", "lossless"])
@pytest.mark.parametrize("sampling", [{}, {"temperature": 0.9, "seed": 3, "repetition_penalty": 1.4}, {"n": 2}])
def test_where_full_depth_decides_nothing_differs(llm: LLM, exit: str, sampling: dict[str, Any]) -> None:
    found = rescored(llm, *SOURCES, exit=exit, **FREE, **sampling)
    assert [(one.outcome, one.tokens, one.differ) for one in found] == [("rescored", 24, 0)] * 4


@pytest.mark.parametrize("steps", [1, 2, 5], ids=["encoded", "a segment run", "tokens run"])
def test_a_job_that_comes_ends_a_pass_with_its_source_given_back(
    llm: LLM, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    monkeypatch.setattr(shadow, "STEP_SECONDS", 0.0)
    expected = rescored(llm, *SOURCES[:2], exit=EARLY, **FREE)
    alone = llm.generate([SOURCES[1]], SamplingParams(**FREE), EARLY)[0]
    at_work, sources = AtWork(llm, shadow=1.0), llm.engine.scheduler.sources
    at_work.submit(job(SOURCES[0], 0, exit=EARLY, **FREE))
    at_work.finish()
    for _ in range(steps):
        at_work.worker.step()
    assert sources is not None and sources.num_free == sources.num_blocks - 1
    at_work.submit(job(SOURCES[1], 1, exit=EARLY, **FREE))
    at_work.finish()
    assert at_work.tokens(1) == list(alone.token_ids)
    assert at_work.rescore() == expected


def test_a_source_that_breaks_off_costs_its_sample_only(llm: LLM, capfd: pytest.CaptureFixture[str]) -> None:
    at_work = AtWork(llm, shadow=1.0)
    at_work.submit(*[job(source, i, exit=EARLY, **FREE) for i, source in enumerate(SOURCES[:2])])
    at_work.finish()
    good = at_work.engine.executor
    at_work.engine.executor = cast("Executor", Breaking(good, "encode"))
    at_work.worker.step()
    at_work.engine.executor = good
    at_work.check_idle()
    assert [one.outcome for one in at_work.rescore()] == ["failed", "rescored"]
    assert "MemoryError: no room" in capfd.readouterr().err
