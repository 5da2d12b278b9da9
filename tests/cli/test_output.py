"""Progress, colours, reports, and the small commands."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import offramp.models
from offramp.cli.main import main
from offramp.cli.progress import on_batch, on_download, show_progress
from offramp.cli.report import report_lines
from offramp.cli.terminal import depth_colour
from tests.cli.fake import FakeLLM, output


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def clock(*times: float) -> Iterator[float]:
    return iter(times)


def test_a_pipe_gets_a_line_every_ten_seconds() -> None:
    stream, times = io.StringIO(), clock(0, 5, 11, 11, 15, 22, 22)
    with show_progress(stream, lambda: next(times)) as update:
        for text in "abcd":
            update(1, 2, text)
    assert stream.getvalue() == "b\nd\n"


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    with show_progress(stream) as update:
        update(1, 2, "halfway")
    assert "halfway" in stream.getvalue() and "━" in stream.getvalue()


def test_progress_can_be_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OFFRAMP_NO_PROGRESS", "1")
    stream = Terminal()
    with show_progress(stream) as update:
        update(1, 2, "halfway")
    assert stream.getvalue() == ""


def test_downloads_show_rate_and_time_to_go() -> None:
    seen: list[tuple[int, int, str]] = []
    times = clock(0, 2)
    on_download(lambda *a: seen.append(a), lambda: next(times))(20_000_000, 50_000_000, "downloading x")
    text = "downloading x: 20.0 of 50.0 MB, 10.0 MB/s, 3 s to go"
    assert seen == [(20_000_000, 50_000_000, text)]


def test_batches_show_speed_and_depth() -> None:
    seen: list[tuple[int, int, str]] = []
    times = clock(0, 2)
    on_batch(lambda *a: seen.append(a), 6, lambda: next(times))(1, 4, 50, 3.5)
    assert seen == [(1, 4, "1 of 4 outputs, 25.0 tokens/s, depth 3.5/6")]


def test_shallower_tokens_have_another_colour() -> None:
    assert depth_colour(6, 6) is None
    assert depth_colour(1, 6) != depth_colour(5, 6)


def test_tokens_are_coloured_on_a_terminal(llm: FakeLLM, monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Terminal()
    monkeypatch.setattr("sys.stdout", screen)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    main(["generate", "Why?"])
    assert screen.getvalue().startswith("Down\x1b[") and screen.getvalue().count("\x1b[0m") == 2


def test_no_color_is_honoured(llm: FakeLLM, monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Terminal()
    monkeypatch.setattr("sys.stdout", screen)
    monkeypatch.setenv("NO_COLOR", "1")
    main(["generate", "Why?"])
    assert screen.getvalue() == "Down it falls\n"


def test_the_report_tells_of_drafts_and_of_the_switch() -> None:
    one = output()
    report = replace(one.report, drafts_proposed=4, drafts_accepted=3, switched_off=True)
    lines = report_lines([replace(one, report=report)], 1.5)
    assert lines[0] == "3 tokens, 2.0 tokens/s, mean exit layer 4.0 of 6"
    assert lines[2:] == [
        "drafts: 4 proposed, 3 accepted (75%)",
        "exits were switched off for 1 of 1 outputs: they cost more than they saved",
    ]


def test_inspect_shows_exits_and_costs(llm: FakeLLM, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "some-model", "--exits", "2,4"]) == 0
    out = capsys.readouterr().out
    assert "2, 4" in out and "fill from" in out and "1.00 ms" in out
    assert llm.made_with["model"] == "some-model"


def test_inspect_shows_what_an_encoder_costs(
    llm: FakeLLM, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = llm.inspect()
    told = {**plain, "encoder_layers": 2, "sources": [{"tokens": 32, "seconds": 0.25}]}
    monkeypatch.setattr(llm, "inspect", lambda: told)
    assert main(["inspect", "some-model"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["encoder", "layers", "2"] in lines and ["32", "250.00", "ms"] in lines


def test_inspect_as_json(llm: FakeLLM, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "some-model", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["exits"] == [2, 4]


def test_pull_prints_where_the_model_lies(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    files = offramp.models.ModelFiles("toy", "gguf", Path("/models/toy.gguf"))
    monkeypatch.setattr(offramp.models, "resolve", lambda model, progress: files)
    assert main(["pull", "toy"]) == 0
    assert main(["pull", "toy", "--json"]) == 0
    plain, as_json = capsys.readouterr().out.splitlines()
    assert plain == "/models/toy.gguf"
    assert json.loads(as_json) == {"model": "toy", "form": "gguf", "path": "/models/toy.gguf"}
