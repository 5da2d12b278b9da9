"""Sets with right completions: how many are given, and how many fewer than at full depth."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from offramp import ExitParams, SamplingParams
from offramp.cli.main import main
from offramp.errors import InvalidParameter
from offramp.evaluate.bootstrap import ratio
from offramp.evaluate.page import page, tables
from offramp.evaluate.run import EvalOptions, evaluate
from offramp.evaluate.tasks import Case
from offramp.exits.calibration import Calibration
from offramp.exits.write_calibration import write_calibrations
from offramp.llm import LLM
from tests.calibrate.conftest import open_llm

RISKY = ExitParams(threshold=0.25)
OPTIONS = EvalOptions(("task:0.3",), max_tokens=6, batch=5)


@pytest.fixture
def calibrated(model: Path, pack: Path, monkeypatch: pytest.MonkeyPatch) -> LLM:
    """A model whose dial has the position task:0.3."""
    # The toy's outputs are no whole characters, and as text, of replacement characters, longer than they were.
    monkeypatch.setattr("offramp.evaluate.run.check_room", lambda *_: None)
    with open_llm(model, pack) as llm:
        key = replace(llm.calibration_key, kv="fill")
    write_calibrations(pack, [], key, [Calibration(key, 0.3, 0.05, "task", 100, RISKY)], [])
    return open_llm(model, pack, prefix_caching=False)


def texts(llm: LLM, cases: list[Case], exit: ExitParams | str) -> list[str]:
    outputs = llm.generate([case.prompt for case in cases], SamplingParams(max_tokens=6), exit)
    return [output.text.strip() for output in outputs]


def some_cases(llm: LLM) -> list[Case]:
    """Answers of full depth, of exits, and of neither, and every fifth prompt without one."""
    prompts = [tuple(llm.tokenizer.encode(f"{chr(97 + i)} is number {i * 37}")) for i in range(20)]
    cases = [Case("pairs", prompt) for prompt in prompts]
    full, risky = texts(llm, cases, "off"), texts(llm, cases, RISKY)
    given = [[f, f, r, "neither", None][i % 5] for i, (f, r) in enumerate(zip(full, risky, strict=True))]
    return [replace(case, answer=answer) for case, answer in zip(cases, given, strict=True)]


def test_accuracy_points_lost_and_the_loss_are_what_a_recount_gives(calibrated: LLM) -> None:
    cases = some_cases(calibrated)
    full, risky = texts(calibrated, cases, "off"), texts(calibrated, cases, RISKY)
    asked = [(f == c.answer, r == c.answer) for f, r, c in zip(full, risky, cases, strict=True) if c.answer is not None]
    off, setting = evaluate(calibrated, cases, OPTIONS).settings
    assert off.measures["accuracy/pairs"] == ratio([float(f) for f, _ in asked])
    assert off.measures["points_lost/pairs"] == off.measures["task"] == (0, 0, 0)
    assert setting.measures["accuracy/pairs"] == ratio([float(r) for _, r in asked])
    assert setting.measures["points_lost/pairs"] == ratio([float(f) - float(r) for f, r in asked])
    assert setting.measures["task"] == ratio([float(f and not r) for f, r in asked])
    lost = setting.measures["points_lost/pairs"]
    assert lost.value == pytest.approx(off.measures["accuracy/pairs"].value - setting.measures["accuracy/pairs"].value)
    assert setting.measures["task"].value > lost.value and lost.low < lost.value < lost.high


def test_tables_and_page_show_them(calibrated: LLM) -> None:
    report = evaluate(calibrated, some_cases(calibrated), OPTIONS)
    (_, heads, rows), _ = tables(report)
    assert heads[3:5] == ["pairs", "lost"]
    value, interval = dict(rows)["task:0.3"][4]
    told = report.settings[1].measures["points_lost/pairs"]
    assert float(value) == pytest.approx(100 * told.value, abs=0.1) and (" to " in interval) == (told.low < 0)
    shown = page(report)
    assert (
        "share right of pairs" in shown
        and "share of answers that is lost" in shown
        and "share that differs" not in shown
    )


def test_a_completion_longer_than_what_is_generated_is_refused(model: Path, pack: Path) -> None:
    with (
        open_llm(model, pack) as llm,
        pytest.raises(InvalidParameter, match=r"^a completion takes 8 tokens, and at most 6"),
    ):
        evaluate(llm, [Case("x", (1,), "seven b")], EvalOptions(max_tokens=6))


def test_the_command_reads_completions(
    model: Path, pack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text('{"prompt": "1 + 1 =", "completion": " 2"}\n{"prompt": "1 + 2 =", "completion": " 3"}\n')
    asked = ["eval", str(model), "--exits", str(pack), "--data", str(path), "--max-tokens", "6", "--json"]
    assert main([*asked, "--dtype", "float32"]) == 0
    off, lossless = json.loads(capsys.readouterr().out)["settings"]
    assert off["measures"]["accuracy/pairs.jsonl"] == {"value": 0.0, "low": 0.0, "high": 0.0}
    assert lossless["measures"]["points_lost/pairs.jsonl"] == {"value": 0.0, "low": 0.0, "high": 0.0}
