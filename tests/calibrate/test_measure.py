"""What is measured of an output, against token by token recounts."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from offramp import ExitParams, SamplingParams
from offramp.calibrate.measure import Measurer
from offramp.calibrate.path import NEVER
from offramp.calibrate.prompts import Tokens
from offramp.calibrate.results import Results
from offramp.engine.trace import read_trace
from offramp.exits.pack import Base, ExitSpec
from offramp.exits.write import write_pack
from offramp.llm import LLM
from tests.calibrate.conftest import count_generated, open_llm

LENGTH = 12


@pytest.fixture
def results(cache: Path) -> Iterator[Results]:
    with Results({}) as results:
        yield results


def some_prompts(llm: LLM, count: int = 6) -> list[Tokens]:
    return [tuple(llm.tokenizer.encode(f"{chr(97 + i)} number {i * 37}" * (1 + i % 4))) for i in range(count)]


def full_depth(llm: LLM, prompt: Tokens) -> int:
    """The next token, from a cold start."""
    return llm.generate([prompt], SamplingParams(max_tokens=1))[0].token_ids[0]


@pytest.mark.parametrize("kv", ["fill", "recompute"])
def test_losses_are_those_of_a_full_depth_run_for_every_token(kv: str, results: Results, llm: LLM) -> None:
    setting = ExitParams(threshold=0.25, kv=kv)  # type: ignore[arg-type]
    prompts = some_prompts(llm)
    measured = list(Measurer(llm, results, LENGTH).results(setting, prompts))
    for prompt, result in zip(prompts, measured, strict=True):
        (output,) = llm.generate([prompt], SamplingParams(max_tokens=LENGTH), setting)
        tokens = output.token_ids
        differ = [token != full_depth(llm, (*prompt, *tokens[:i])) for i, token in enumerate(tokens)]
        assert result == {"tokens": len(tokens), "differ": sum(differ), "run": sum(output.report.layers_run)}
    assert sum(result["differ"] for result in measured) > 0
    llm.engine.check_integrity()


def test_observations_are_what_exits_say_when_tested(
    results: Results, llm: LLM, model: Path, pack: Path, tmp_path: Path
) -> None:
    prompts = some_prompts(llm)
    seen = Measurer(llm, results, LENGTH).observe("margin", {}, prompts)
    never = ExitParams(criterion="margin", threshold=1.0)
    trace = tmp_path / "trace.jsonl"
    executor = llm.calibration_key.executor
    with open_llm(model, pack, executor=executor, trace=trace) as traced:
        outputs = traced.generate(prompts, SamplingParams(max_tokens=LENGTH), never)
    tests = [test for line in read_trace(trace) for test in line["tests"][1:]]
    assert [[layer for layer, _ in test] for test in tests] == [[1, 3]] * len(tests)
    assert seen.confidences.ravel().tolist() == pytest.approx([c for test in tests for _, c in test], abs=1e-5)
    row = 0
    for output in outputs:
        for i in range(1, len(output.token_ids)):
            for k, layer in enumerate(seen.layers):
                leave = ExitParams(criterion="fixed", threshold=1, options={"layer": layer})
                cut = (*output.prompt_token_ids, *output.token_ids[: i - 1])
                (again,) = llm.generate([cut], SamplingParams(max_tokens=2, ignore_eos=True), leave)
                assert seen.differs[row, k] == (again.token_ids[1] != output.token_ids[i])
            row += 1
    assert row == len(seen.weights) and seen.differs.any() and not seen.differs.all()


@pytest.mark.parametrize("executor", ["native", "torch"])
@pytest.mark.parametrize("caching", [True, False])
def test_exits_that_read_the_past_are_observed_behind_tokens_of_the_top(
    executor: str, caching: bool, results: Results, model: Path, tmp_path: Path
) -> None:
    pack, trace, length = write_past_pack(tmp_path / "past"), tmp_path / "trace.jsonl", 50
    options = {"executor": executor, "prefix_caching": caching}
    with open_llm(model, pack, **options) as llm:
        prompts = some_prompts(llm, 9)
        seen = Measurer(llm, results, length).observe("max_prob", {}, prompts)
    with open_llm(model, pack, trace=trace, **options) as traced:
        outputs = traced.generate(prompts, SamplingParams(max_tokens=length), ExitParams(threshold=1.0))
    assert max(len(output.token_ids) for output in outputs) == length
    tests = [test for line in read_trace(trace) for test in line["tests"][1:]]
    told = [c for test in tests for _, c in test]
    assert max(told) < 1 and len({round(c, 3) for c in told}) > len(told) // 4
    assert seen.confidences.ravel().tolist() == pytest.approx(told, abs=1e-4)


def write_past_pack(path: Path) -> Path:
    """Exits at the embedding and after layer 2, which lean on the past."""
    pick, d = np.random.default_rng(5), 16
    tensors = {}
    for layer in (0, 2):
        weight = np.concatenate((np.eye(d), 0.5 * np.eye(d)), axis=1) + 0.2 * pick.standard_normal((d, 2 * d))
        tensors[f"exits.{layer}.past.weight"] = weight.astype(np.float32)
        for name in ("hidden", "state"):
            tensors[f"exits.{layer}.past.{name}_norm.weight"] = np.ones(d, np.float32)
    write_pack(path, Base(4, d, 258), [ExitSpec(layer, past="deep") for layer in (0, 2)], tensors)
    return path


def test_an_exit_that_cannot_fire_is_never_sure(results: Results, llm: LLM) -> None:
    seen = Measurer(llm, results, LENGTH).observe("saturation", {}, some_prompts(llm, 2))
    assert (seen.confidences[:, 0] == NEVER).all() and (seen.confidences[:, 1] >= 0).all()


def test_weights_count_every_prompt_alike_and_leave_out_first_tokens(results: Results, llm: LLM) -> None:
    prompts = some_prompts(llm)
    seen = Measurer(llm, results, LENGTH).observe("max_prob", {}, prompts)
    outputs = llm.generate(prompts, SamplingParams(max_tokens=LENGTH))
    expected = sum((len(o.token_ids) - 1) / len(o.token_ids) for o in outputs) / len(outputs)
    assert seen.weights.sum() == pytest.approx(expected)


def test_what_was_measured_is_not_measured_again(results: Results, llm: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    setting, prompts = ExitParams(threshold=0.25), some_prompts(llm, 20)
    measurer = Measurer(llm, results, LENGTH)
    first = list(islice(measurer.results(setting, prompts), 3))
    asked = count_generated(llm, monkeypatch)
    everything = list(measurer.results(setting, prompts))
    assert everything[:3] == first and asked == [4]
    assert list(measurer.results(setting, prompts[::-1])) == everything[::-1] and asked == [4]
