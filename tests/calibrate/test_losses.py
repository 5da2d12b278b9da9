"""Losses against recounts, and calibration for answers from end to end."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from offramp import ExitParams, SamplingParams
from offramp.calibrate.losses import Disagreement, ReferenceLoss, TaskLoss, TextLoss
from offramp.calibrate.measure import Measurer
from offramp.calibrate.prompts import Prompt, choose_prompts, read_prompts
from offramp.calibrate.results import Results
from offramp.calibrate.risks import RiskOptions, calibrate_risks
from offramp.cli.main import main
from offramp.errors import InvalidParameter
from offramp.exits.read import read_pack
from offramp.exits.write_calibration import write_calibrations
from offramp.llm import LLM
from tests.calibrate.conftest import count_generated, open_llm

LENGTH = 6
SETTING = ExitParams(threshold=0.25)
OPTIONS = RiskOptions(risks=(0.2, 0.6), loss="task", delta=0.2, steps=5, max_tokens=LENGTH)
TYPES = ["--dtype", "float32", "--kv-dtype", "float32"]


@pytest.fixture
def measurer(llm: LLM, cache: Path) -> Iterator[Measurer]:
    with Results({}) as results:
        yield Measurer(llm, results, LENGTH)


def generate(llm: LLM, prompts: Sequence[Prompt], exit: ExitParams | str = "off") -> list[str]:
    outputs = llm.generate([prompt.tokens for prompt in prompts], SamplingParams(max_tokens=LENGTH), exit)
    return [output.text for output in outputs]


def answered(llm: LLM, data: Path) -> list[Prompt]:
    """Three of four answers are those of full depth."""
    prompts = choose_prompts(read_prompts([data], llm.tokenizer), 1000, 100)
    texts = generate(llm, prompts)
    return [Prompt(p.tokens, text if i % 4 else "no") for i, (p, text) in enumerate(zip(prompts, texts, strict=True))]


def test_an_answer_is_lost_where_full_depth_gives_it_and_the_setting_does_not(
    llm: LLM, measurer: Measurer, data: Path
) -> None:
    prompts = answered(llm, data)
    full, here = generate(llm, prompts), generate(llm, prompts, SETTING)
    expected = [
        float(a.strip() == (p.completion or "").strip() != b.strip())
        for a, b, p in zip(full, here, prompts, strict=True)
    ]
    found = list(TaskLoss(measurer).of(SETTING, prompts))
    assert [lost.loss for lost in found] == expected and 0 < sum(expected) < len(prompts)
    assert all(0 < lost.run <= 4 * lost.tokens for lost in found)


def test_what_a_setting_alone_gets_right_is_no_loss_and_no_gain(llm: LLM, measurer: Measurer, data: Path) -> None:
    prompts = answered(llm, data)
    prompts = [Prompt(p.tokens, text) for p, text in zip(prompts, generate(llm, prompts, SETTING), strict=True)]
    assert {lost.loss for lost in TaskLoss(measurer).of(SETTING, prompts)} == {0.0}


def test_full_depth_answers_once_for_all_settings(
    llm: LLM, measurer: Measurer, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = answered(llm, data)[:8]
    generated = count_generated(llm, monkeypatch)
    for threshold in (0.2, 0.5, 0.8):
        list(TaskLoss(measurer).of(ExitParams(threshold=threshold), prompts))
    assert sum(generated) == 4 * 8
    list(TaskLoss(measurer).of(SETTING, [Prompt(p.tokens, "other") for p in prompts]))
    assert sum(generated) == 6 * 8


def test_texts_are_compared_by_rouge_with_those_of_full_depth_and_with_completions(
    llm: LLM, measurer: Measurer, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def alike(text: str, other: str) -> float:
        """ROUGE-L of the toy's texts, which have no words, would be 0 or 1."""
        return 1 / (1 + abs(len(text) - len(other)))

    monkeypatch.setattr("offramp.calibrate.losses.rouge_l", alike)
    prompts = answered(llm, data)
    full, here = generate(llm, prompts), generate(llm, prompts, SETTING)
    wanted = [prompt.completion or "" for prompt in prompts]
    differ = [1 - alike(b, a) for a, b in zip(full, here, strict=True)]
    worse = [alike(a, w) - alike(b, w) for a, b, w in zip(full, here, wanted, strict=True)]
    assert [lost.loss for lost in TextLoss(measurer).of(SETTING, prompts)] == differ
    assert [lost.loss for lost in ReferenceLoss(measurer).of(SETTING, prompts)] == [max(0.0, w) for w in worse]
    assert max(differ) > 0 and max(worse) > 0 > min(worse)


def test_disagreement_is_the_share_of_tokens_that_differ(llm: LLM, measurer: Measurer, data: Path) -> None:
    prompts = answered(llm, data)
    found = list(Disagreement(measurer).of(SETTING, prompts))
    counted = measurer.results(SETTING, [prompt.tokens for prompt in prompts])
    assert [lost.loss for lost in found] == [c["differ"] / c["tokens"] for c in counted]


@pytest.fixture
def roomy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The toy's outputs are no whole characters, and as text, of replacement characters, longer than they were."""
    monkeypatch.setattr("offramp.calibrate.losses.check_room", lambda *_: None)


@pytest.mark.usefixtures("roomy")
def test_the_dial_serves_what_was_calibrated_for_answers(llm: LLM, model: Path, pack: Path, data: Path) -> None:
    report = calibrate_risks(llm, answered(llm, data), OPTIONS)
    write_calibrations(pack, (), report.key, report.calibrations, OPTIONS.risks, "task")
    place = report.verdict.accepted[0.6]
    assert place is not None and {c.loss for c in read_pack(pack).calibrations} == {"task"}
    with open_llm(model, pack, executor=llm.calibration_key.executor) as served:
        by_hand = OPTIONS.params(report.path[place])
        sampling = SamplingParams(max_tokens=8)
        assert served.generate("abc", sampling, "task:0.6") == served.generate("abc", sampling, by_hand)


def test_prompts_without_completions_are_told_before_anything_runs(
    llm: LLM, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = choose_prompts(read_prompts([data], llm.tokenizer), 1000, 100)
    generated = count_generated(llm, monkeypatch)
    with pytest.raises(InvalidParameter) as error:
        calibrate_risks(llm, [Prompt(prompts[0].tokens, "a"), *prompts[1:]], OPTIONS)
    assert str(error.value) == (
        "the loss `task` needs completions, and 59 of 60 prompts have none\n"
        'hint: give `.jsonl` files with lines of the form {"prompt": "...", "completion": "..."}'
    )
    with pytest.raises(InvalidParameter, match=r"^a completion takes \d+ tokens, and at most 2 are generated"):
        calibrate_risks(llm, [Prompt(p.tokens, "long") for p in prompts], replace(OPTIONS, max_tokens=2))
    assert generated == []


@pytest.mark.usefixtures("roomy")
def test_where_full_depth_gives_no_answer_there_is_nothing_to_promise(llm: LLM, data: Path) -> None:
    prompts = [Prompt(prompt.tokens, "no") for prompt in answered(llm, data)]
    with pytest.raises(InvalidParameter, match=r"^full depth gives the right completion for none of 12 prompts"):
        calibrate_risks(llm, prompts, OPTIONS)


@pytest.mark.usefixtures("roomy")
def test_the_command_keeps_both_losses_apart(
    llm: LLM, model: Path, pack: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "pairs.jsonl"
    texts = data.read_text().splitlines()
    answers = generate(llm, [Prompt(tuple(llm.tokenizer.encode(text))) for text in texts])
    lines = [{"prompt": text, "completion": answer} for text, answer in zip(texts, answers, strict=True)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    asked = ["calibrate", str(model), "--exits", str(pack), "--data", str(path), "--risk", "0.6", "--delta", "0.2"]
    asked += ["--max-tokens", str(LENGTH), "--steps", "3", "--executor", llm.calibration_key.executor, *TYPES]
    assert main(asked) == main([*asked, "--loss", "task"]) == 0
    assert [(c.loss, c.risk) for c in read_pack(pack).calibrations] == [("disagreement", 0.6), ("task", 0.6)]
    shown = capsys.readouterr().out
    assert "disagreement" in shown and "task:0.6" in shown
    assert main([*asked, "--loss", "speed"]) == 1
    assert capsys.readouterr().err.startswith("error: `loss` cannot be 'speed'\n")
