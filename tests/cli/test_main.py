"""Finding commands, and turning failures into a line and an exit code."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from offramp.cli.main import COMMANDS, main
from offramp.errors import ModelNotFound
from tests.cli.fake import FakeLLM


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["--help"])
    assert end.value.code == 0
    out = capsys.readouterr().out
    assert all(f"  {name} " in out for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_a_command_has_two_examples(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main([name, "--help"])
    assert end.value.code == 0
    assert capsys.readouterr().out.partition("examples:")[2].count("offramp ") == 2


def test_help_imports_neither_torch_nor_numpy() -> None:
    code = (
        "import sys\nfrom offramp.cli.main import main\n"
        "try: main(['generate', '--help'])\nexcept SystemExit: pass\n"
        "print(sorted({'torch', 'numpy', 'rich'} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == "[]\n"


def test_no_command_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "commands:" in capsys.readouterr().err


def test_unknown_command_gets_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["generat"])
    assert end.value.code == 2
    error, hint = capsys.readouterr().err.splitlines()
    assert error == "error: unknown command `generat`"
    assert hint.startswith("hint: did you mean `generate`?")


def test_unknown_flag_gets_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["generate", "x", "--max-token", "3"])
    assert end.value.code == 2
    assert capsys.readouterr().err == "error: unknown argument `--max-token`\nhint: did you mean `--max-tokens`?\n"


def test_a_flag_that_is_no_number_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["generate", "x", "--threshold", "high"])
    assert end.value.code == 2
    assert capsys.readouterr().err.startswith("error: argument --threshold: `high` is not a number\n")


def test_a_value_that_is_not_allowed_gets_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", "x", "--kv", "recompute_all"]) == 1
    error, hint = capsys.readouterr().err.splitlines()
    assert error == "error: `kv` cannot be 'recompute_all'"
    assert hint.startswith("hint: did you mean `recompute`?")


def test_an_expected_failure_is_two_lines(llm: FakeLLM, capsys: pytest.CaptureFixture[str]) -> None:
    llm.fails = ModelNotFound("no model `x`", hint="pull one")
    assert main(["generate", "x", "--json"]) == 1
    assert capsys.readouterr().err == "error: no model `x`\nhint: pull one\n"


def test_debug_shows_the_traceback(llm: FakeLLM, capsys: pytest.CaptureFixture[str]) -> None:
    llm.fails = ModelNotFound("no model `x`")
    assert main(["generate", "x", "--json", "--debug"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_a_file_that_cannot_be_written_is_no_bug(llm: FakeLLM, capsys: pytest.CaptureFixture[str]) -> None:
    llm.fails = FileNotFoundError(2, "No such file or directory", "/no/trace")
    assert main(["generate", "x", "--json"]) == 1
    assert capsys.readouterr().err == "error: `/no/trace`: No such file or directory\n"


def test_a_bug_asks_to_be_reported(llm: FakeLLM, capsys: pytest.CaptureFixture[str]) -> None:
    llm.fails = KeyError("slot")
    assert main(["generate", "x", "--json"]) == 1
    assert capsys.readouterr().err == (
        "error: unexpected KeyError: 'slot'\n"
        "hint: this is a bug in offramp: please report it with the traceback that `--debug` prints\n"
    )


def test_interrupt_keeps_what_was_generated(llm: FakeLLM, capsys: pytest.CaptureFixture[str]) -> None:
    llm.fails = KeyboardInterrupt()
    assert main(["generate", "x"]) == 130
    captured = capsys.readouterr()
    assert captured.out == "Down\n"
    assert captured.err.splitlines()[-1] == "interrupted"
    assert llm.closed


def test_a_reader_that_goes_away_is_no_traceback() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    words = [sys.executable, "-m", "offramp", "doctor", "--json"]
    done = subprocess.run(words, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert done.returncode == 1
    assert done.stderr == ""


def test_doctor_tells_versions_and_criteria(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["packages"]["numpy"] and "max_prob" in facts["criteria"]
    assert facts["isa"] in facts["isas"] and facts["isas"][-1] == "portable" and facts["threads"] >= 1
    assert min(facts["memory_gb_per_s"], facts["float32_gflop_per_s"], facts["int8_gop_per_s"]) > 0
    assert facts["problems"] == []
