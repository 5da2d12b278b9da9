"""An evaluation from end to end, against recounts from its own outputs."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from offramp import ExitParams, SamplingParams
from offramp.cli.main import main
from offramp.errors import OfframpError, PackError
from offramp.evaluate.page import page
from offramp.evaluate.run import EvalOptions, evaluate
from offramp.evaluate.similarity import chrf, rouge_l
from offramp.evaluate.tasks import Case, last_number
from offramp.exits.calibration import Calibration
from offramp.exits.write_calibration import write_calibrations
from offramp.llm import LLM
from tests.calibrate.conftest import open_llm

RISKY = ExitParams(threshold=0.25)
TYPES = ["--dtype", "float32", "--kv-dtype", "float32"]
OPTIONS = EvalOptions(("lossless", "0.3"), max_tokens=8, batch=3)


@pytest.fixture
def calibrated(model: Path, pack: Path) -> LLM:
    """A model whose dial has the position 0.3."""
    with open_llm(model, pack) as llm:
        key = replace(llm.calibration_key, kv="fill")
    write_calibrations(pack, [], key, [Calibration(key, 0.3, 0.05, "disagreement", 100, RISKY)], [])
    return open_llm(model, pack, prefix_caching=False)


def some_cases(llm: LLM) -> list[Case]:
    texts = [f"[user] {chr(97 + i)} is number {i * 37}\n" for i in range(8)]
    return [
        Case("numbers", tuple(llm.tokenizer.encode(t)), "7", last_number)
        if i % 2
        else Case("chat", tuple(llm.tokenizer.encode(t)))
        for i, t in enumerate(texts)
    ]


def test_every_measure_is_what_a_recount_gives(calibrated: LLM) -> None:
    cases = some_cases(calibrated)
    report = evaluate(calibrated, cases, OPTIONS)
    assert [s.name for s in report.settings] == ["off", "lossless", "0.3"]
    assert report.prompts == {"chat": 4, "numbers": 4}
    sampling = SamplingParams(max_tokens=8)
    prompts = [case.prompt for case in cases]
    off = calibrated.generate(prompts, sampling)
    dials: list[str | ExitParams] = ["off", "lossless", RISKY]
    for setting, exit in zip(report.settings, dials, strict=True):
        outputs = calibrated.generate(prompts, sampling, exit)
        values = {name: interval.value for name, interval in setting.measures.items()}
        tokens = sum(len(o.token_ids) for o in outputs)
        assert values["rouge_l"] == pytest.approx(
            sum(rouge_l(a.text, b.text) for a, b in zip(outputs, off, strict=True)) / 8
        )
        assert values["chrf"] == pytest.approx(sum(chrf(a.text, b.text) for a, b in zip(outputs, off, strict=True)) / 8)
        assert values["exit_layer"] == pytest.approx(sum(sum(o.exit_layers) for o in outputs) / tokens)
        assert values["run"] + values["filled"] + values["skipped"] == pytest.approx(4)
        assert sum(setting.exit_shares.values()) == pytest.approx(1)
        differ = nats = 0.0
        for output in outputs:
            for i, token in enumerate(output.token_ids):
                prefix = (*output.prompt_token_ids, *output.token_ids[:i])
                (one,) = calibrated.generate([prefix], SamplingParams(max_tokens=1, logprobs=100))
                assert one.logprobs is not None
                differ += (one.token_ids[0] != token) / len(output.token_ids) / 8
                nats -= dict(one.logprobs[0]).get(token, math.nan)
        assert values["differ"] == pytest.approx(differ)
        assert values["perplexity"] == pytest.approx(math.exp(nats / tokens), rel=1e-4)
    full, lossless, risky = report.settings
    for exact in (full, lossless):
        assert exact.measures["differ"].value == 0 and exact.measures["rouge_l"].value == 1
    assert risky.measures["differ"].value > 0 and risky.measures["exit_layer"].value < 4
    assert full.speedup == pytest.approx((1, 1, 1)) and full.exit_shares == {4: 1} and lossless.drafts[0] > 0
    assert set(full.measures) == set(risky.measures) >= {"accuracy/numbers"}


def test_samples_are_the_outputs_in_pieces(calibrated: LLM) -> None:
    cases = some_cases(calibrated)
    for setting in evaluate(calibrated, cases, OPTIONS).settings:
        exit = RISKY if setting.name == "0.3" else setting.name
        outputs = calibrated.generate([case.prompt for case in cases[:4]], SamplingParams(max_tokens=8), exit)
        for sample, output in zip(setting.samples, outputs, strict=True):
            assert "".join(text for text, _ in sample.pieces) == output.text
            assert tuple(layer for _, layer in sample.pieces[:-1]) == output.exit_layers


def test_what_cannot_be_evaluated_is_refused_first(calibrated: LLM) -> None:
    cases = some_cases(calibrated)
    with pytest.raises(OfframpError, match="there are no prompts"):
        evaluate(calibrated, [], OPTIONS)
    with pytest.raises(OfframpError, match="`exit` cannot be 'fast'"):
        evaluate(calibrated, cases, EvalOptions(("fast",)))
    with pytest.raises(PackError, match=r"no calibration for a risk of 0\.1, only for 0\.3"):
        evaluate(calibrated, cases, EvalOptions(("0.1",)))
    with pytest.raises(OfframpError, match=r"a prompt has \d+ tokens and may get 120 more, the context holds 128"):
        evaluate(calibrated, cases, EvalOptions(max_tokens=120))


class Tags(HTMLParser):
    """Checks that tags close in order, and keeps the text and what is referred to."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []
        self.links: list[str | None] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [value for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta", "line", "circle", "rect"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in ("line", "circle", "rect"):
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_the_page_is_whole_and_fetches_nothing(calibrated: LLM) -> None:
    report = evaluate(calibrated, some_cases(calibrated), OPTIONS)
    tags = Tags()
    tags.feed(page(report))
    assert tags.open == [] and tags.links == []
    text = "".join(tags.text)
    assert all(title in text for title in ("Quality against speed", "Where tokens leave", "Calibration"))
    for setting in report.settings:
        assert f"{setting.measures['exit_layer'].value:.2f}" in text
        for sample in setting.samples:
            assert "".join(piece for piece, _ in sample.pieces).replace("\r", "") in text.replace("\r", "")


def test_the_command_writes_what_it_prints(
    calibrated: LLM, model: Path, pack: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    calibrated.close()
    out = tmp_path / "report"
    asked = ["--exits", str(pack), "--data", str(data), "--prompts", "4", "--max-tokens", "6", *TYPES]
    assert main(["eval", str(model), *asked, "--settings", "0.3", "--out", str(out), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report == json.loads((out / "eval.json").read_text())
    assert [s["name"] for s in report["settings"]] == ["off", "0.3"] and report["prompts"] == {"prompts.txt": 4}
    assert (out / "eval.html").read_text().startswith("<!doctype html>")
    assert main(["eval", str(model), *asked, "--settings", "0.3"]) == 0
    assert re.search(r"4 of prompts\.txt; below each value", capsys.readouterr().out)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "nothing.txt"], "`nothing.txt` cannot be read: "),
        (["--prompts", "0"], "`prompts` must be a whole number of at least 1, not 0"),
        (["--batch", "0"], "`batch` must be a whole number of at least 1, not 0"),
        (["--max-tokens", "0"], "`max_tokens` must be a whole number of at least 1, not 0"),
    ],
)
def test_what_cannot_be_asked(
    arguments: list[str], message: str, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["eval", str(model), *arguments]) == 1
    assert capsys.readouterr().err.startswith(f"error: {message}")
