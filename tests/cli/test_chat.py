"""`offramp chat`, read from a pipe."""

from __future__ import annotations

import io
import json
import sys

import pytest

from offramp.cli.main import main
from tests.cli.fake import FakeLLM


def chat(monkeypatch: pytest.MonkeyPatch, lines: str, *flags: str) -> int:
    """Run `offramp chat` on some lines of input."""
    monkeypatch.setattr(sys, "stdin", io.StringIO(lines))
    return main(["chat", *flags])


def test_the_conversation_grows(llm: FakeLLM, monkeypatch: pytest.MonkeyPatch) -> None:
    assert chat(monkeypatch, "one\n\ntwo\n", "--system", "Be brief.") == 0
    first = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "one"}]
    answer = {"role": "assistant", "content": "Down it falls"}
    assert [call[1] for call in llm.calls] == [first, [*first, answer, {"role": "user", "content": "two"}]]


def test_reset_forgets(llm: FakeLLM, monkeypatch: pytest.MonkeyPatch) -> None:
    chat(monkeypatch, "one\n/reset\ntwo\n")
    assert llm.calls[1][1] == [{"role": "user", "content": "two"}]


def test_exit_changes_the_dial(llm: FakeLLM, monkeypatch: pytest.MonkeyPatch) -> None:
    chat(monkeypatch, "one\n/exit lossless\ntwo\n")
    assert [call[3] for call in llm.calls] == ["off", "lossless"]


def test_quit_ends(llm: FakeLLM, monkeypatch: pytest.MonkeyPatch) -> None:
    assert chat(monkeypatch, "/quit\none\n") == 0
    assert llm.calls == [] and llm.closed


def test_json_is_one_line_per_answer(
    llm: FakeLLM, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    chat(monkeypatch, "one\ntwo\n", "--json")
    lines = capsys.readouterr().out.splitlines()
    assert [json.loads(line)["text"] for line in lines] == ["Down it falls"] * 2


def test_an_unknown_command_gets_the_nearest(
    llm: FakeLLM, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert chat(monkeypatch, "/rest\n") == 1
    error, hint = capsys.readouterr().err.splitlines()
    assert error == "error: unknown command `/rest`"
    assert hint.startswith("hint: did you mean `/reset`?")
