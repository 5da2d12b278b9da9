"""Calibration from end to end on a toy model: what is accepted, kept, resumed, refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from offramp import SamplingParams
from offramp.calibrate.prompts import choose_prompts, read_prompts
from offramp.calibrate.results import digest
from offramp.calibrate.risks import RiskOptions, RiskReport, calibrate_risks
from offramp.errors import InvalidParameter, OfframpError, PackError
from offramp.exits.read import read_pack
from offramp.exits.write_calibration import params_said, write_calibrations
from offramp.llm import LLM
from tests.calibrate.conftest import count_generated, open_llm

OPTIONS = RiskOptions(risks=(0.3, 0.15), delta=0.1, steps=5, max_tokens=8)


def calibrate(llm: LLM, data: Path, options: RiskOptions = OPTIONS, **more: Any) -> RiskReport:
    return calibrate_risks(llm, choose_prompts(read_prompts([data], llm.tokenizer), 1000, 100), options, **more)


def store(report: RiskReport, pack: Path) -> None:
    write_calibrations(pack, read_pack(pack).calibrations, report.key, report.calibrations, report.options.risks)


@pytest.mark.parametrize("kv", ["fill", "recompute"])
def test_the_dial_serves_what_was_calibrated(kv: Any, llm: LLM, model: Path, pack: Path, data: Path) -> None:
    report = calibrate(llm, data, replace(OPTIONS, kv=kv))
    store(report, pack)
    place = report.verdict.accepted[0.3]
    assert place is not None and report.calibrations[-1].measured["loss"] < 0.3
    with open_llm(model, pack, executor=llm.calibration_key.executor) as served:
        output = served.generate("abc", SamplingParams(max_tokens=8), 0.3)
        assert output.report.exits is not None and output.report.exits["kv"] == kv
        by_hand = report.options.params(report.path[place])
        assert output == served.generate("abc", SamplingParams(max_tokens=8), by_hand)
        with pytest.raises(PackError, match=r"there is no calibration for a risk of 0\.001, only for"):
            served.generate("abc", exit=0.001)


def test_a_calibration_is_refused_in_any_other_surroundings(llm: LLM, model: Path, pack: Path, data: Path) -> None:
    store(calibrate(llm, data), pack)
    other = "torch" if llm.calibration_key.executor == "native" else "native"
    with (
        open_llm(model, pack, executor=other) as served,
        pytest.raises(PackError, match=rf"there is no calibration for .*executor `{other}`"),
    ):
        served.generate("abc", exit=0.3)
    exits = json.loads((pack / "exits.json").read_text())
    (pack / "exits.json").write_text(json.dumps({**exits, "provenance": {"changed": True}}))
    with (
        open_llm(model, pack, executor=llm.calibration_key.executor) as served,
        pytest.raises(PackError, match=r"there is no calibration for .*pack"),
    ):
        served.generate("abc", exit=0.3)


def test_an_interrupted_calibration_goes_on_where_it_stopped(
    llm: LLM, data: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generate, chunks = llm.generate, list[int]()

    def interrupted(prompts: Any, *rest: Any) -> Any:
        if len(chunks) == 4:
            raise KeyboardInterrupt
        chunks.append(len(prompts))
        return generate(prompts, *rest)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(llm, "generate", interrupted)
        calibrate(llm, data)
    generated = count_generated(llm, monkeypatch)
    resumed = calibrate(llm, data)
    rest = sum(generated)
    assert calibrate(llm, data) == resumed and sum(generated) == rest
    monkeypatch.setenv("OFFRAMP_CACHE", str(cache / "other"))
    assert calibrate(llm, data) == resumed
    assert sum(generated) - rest == rest + sum(chunks)


def test_a_setting_is_tested_on_prompts_that_did_not_make_the_path(llm: LLM, data: Path, cache: Path) -> None:
    report = calibrate(llm, data)
    (file,) = (cache / "calibrate").glob("*.jsonl")
    lines = [json.loads(line) for line in file.read_text().splitlines()[1:]]
    makes_path = {line["prompt"] for line in lines if "tests" in line}
    setting = digest(params_said(report.options.params(report.path[0])))
    tests = [line for line in lines if line["setting"] == setting and line["prompt"] not in makes_path]
    assert len(makes_path) == 12 and len(tests) == report.prompts == 48
    mean = sum(line["differ"] / line["tokens"] for line in tests) / 48
    assert report.verdict.tested[0].mean == pytest.approx(mean)


def test_a_risk_that_no_setting_keeps_has_no_calibration_any_more(
    llm: LLM, pack: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store(calibrate(llm, data), pack)
    assert [c.risk for c in read_pack(pack).calibrations] == [0.15, 0.3]
    monkeypatch.setattr("offramp.calibrate.risks.CAREFUL", 4.0)
    monkeypatch.setattr("offramp.calibrate.risks.BOLD", 5.0)
    report = calibrate(llm, data, replace(OPTIONS, risks=(0.15,)))
    assert report.verdict.accepted == {0.15: None} and report.calibrations == ()
    store(report, pack)
    assert [c.risk for c in read_pack(pack).calibrations] == [0.3]


def test_too_few_prompts_are_told_before_anything_runs(llm: LLM, data: Path) -> None:
    with pytest.raises(InvalidParameter) as error:
        calibrate(llm, data, replace(OPTIONS, risks=(0.01,), delta=0.05))
    assert str(error.value) == (
        "a risk of 0.01 takes at least 299 prompts to show, and there are 48 (of 60, a fifth makes the path)\n"
        "hint: give more prompts, or larger risks"
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"risks": (0.0,)}, "`risk` must be a number greater than 0 and at most 1, not 0.0"),
        ({"risks": (1.0,)}, "`risk` must be less than 1"),
        ({"delta": 2}, "`delta` must be a number greater than 0 and at most 1, not 2"),
        ({"steps": 0}, "`steps` must be a whole number of at least 1, not 0"),
        ({"max_tokens": 0}, "`max_tokens` must be a whole number of at least 1, not 0"),
    ],
)
def test_options_that_cannot_be(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OfframpError) as error:
        RiskOptions(**options)
    assert str(error.value) == message


def test_an_unknown_criterion_is_refused(llm: LLM, data: Path) -> None:
    with pytest.raises(InvalidParameter, match="unknown criterion `max_porb`"):
        calibrate(llm, data, replace(OPTIONS, criterion="max_porb"))
