"""Texts that an encoder-decoder is given, and what is measured of its outputs: against Transformers, and recounts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from offramp import LLM, ExitParams, SamplingParams
from offramp.calibrate.measure import Measurer
from offramp.calibrate.results import Results
from offramp.config import EngineConfig
from offramp.engine.engine import Engine
from offramp.evaluate.likelihood import likelihoods
from offramp.llm.forced import Forced
from tests.engine.driver import check_all_free
from tests.executors.t5_toys import make_t5_toy
from tests.executors.toys import random_prompts
from tests.models.t5_toys import save_t5


@pytest.fixture
def llm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LLM]:
    monkeypatch.setenv("OFFRAMP_CACHE", str(tmp_path / "cache"))
    save_t5(tmp_path, untied=True)
    options: dict[str, Any] = {"exits": [1, 2], "executor": "torch", "dtype": "float64", "profitability": False}
    with LLM(str(tmp_path), max_source_len=64, **options) as llm:
        yield llm


@pytest.mark.parametrize("num_source_blocks", [64, 4])
def test_likelihoods_of_given_outputs_are_those_of_transformers(num_source_blocks: int) -> None:
    toy = make_t5_toy("1.1")
    executor = toy.executor(block_size=4, num_blocks=32, num_source_blocks=num_source_blocks)
    engine = Engine(executor, EngineConfig(profitability=False, max_num_batched_tokens=24, max_num_seqs=8))
    texts = zip(random_prompts((3, 18, 9, 12), seed=1), random_prompts((7, 16, 1, 9), seed=2), strict=True)
    asked = [Forced([0, *tokens], 1 + i, source) for i, (tokens, source) in enumerate(texts)]
    for text, seen in zip(asked, likelihoods(engine, asked), strict=True):
        expected = toy.log_probs(text.source, text.tokens, toy.spec.num_layers)
        assert len(seen) == len(text.tokens) - text.start
        for position, token in enumerate(seen, start=text.start):
            told = expected[position - 1]
            assert token.log_prob == pytest.approx(float(told[text.tokens[position]]), abs=1e-8)
            assert token.choice == int(told.argmax())
    check_all_free(engine)


def test_losses_are_those_of_a_full_depth_run_for_every_token(llm: LLM) -> None:
    setting, prompts = ExitParams("fixed", 1.0, options={"layer": 2}), [(3, 4, 5, 1), (6, 1), (7, 7, 8, 9, 10, 1)]
    with Results({}) as results:
        measured = list(Measurer(llm, results, 12).results(setting, prompts))
    sampling = SamplingParams(max_tokens=12)
    for prompt, result in zip(prompts, measured, strict=True):
        (output,) = llm.generate([prompt], sampling, setting)
        start = llm.engine.executor.shape.encoder.decoder_start_token_id  # type: ignore[union-attr]
        (seen,) = likelihoods(llm.engine, [Forced((start, *output.token_ids), 1, prompt)])
        differ = sum(token.choice != chosen for token, chosen in zip(seen, output.token_ids, strict=True))
        assert result == {"tokens": len(output.token_ids), "differ": differ, "run": sum(output.report.layers_run)}
    assert sum(result["differ"] for result in measured) > 0
    llm.engine.check_integrity()


def test_the_longest_prompt_is_the_longest_source(llm: LLM) -> None:
    assert llm.longest_prompt(100) == 64
