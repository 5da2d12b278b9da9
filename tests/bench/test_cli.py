"""`offramp bench` from the command line: bad flags, and small runs of the real thing on a toy checkpoint."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from offramp.bench.engine_run import EngineRun
from offramp.cli.main import main
from tests.bench.toys import cell, loud_machine_allowed, record, report
from tests.models.toys import save_model

__all__ = ["loud_machine_allowed"]

TORCH = ["--dtype", "float32@torch", "--threads", "1", "--batch", "1,2", "--repeats", "1", "--new-tokens", "2"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tiny checkpoint with room for the benchmark's prompts."""
    folder = tmp_path_factory.mktemp("toy")
    save_model(folder, num_hidden_layers=3, max_position_embeddings=512)
    return str(folder)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["engine", "--trace", "x"], "`--trace` says nothing about `bench engine`"),
        (["exits", "--peers", "vllm"], "`--peers` says nothing about `bench exits`"),
        (["exits", "--resume"], "`--resume` needs `--out`"),
        (["engine", "--resume"], "`--resume` needs `--out`"),
        (["engine", "--peers", "lama.cpp"], "`--peers` cannot hold `lama.cpp`"),
        (["engine", "--peer-python", "lama=/x"], "`--peer-python` cannot hold `lama`"),
        (["engine", "--dtype", "int9"], "`--dtype` cannot hold `int9`"),
        (["engine", "--batch", "0"], "`batch` must be"),
        (["engine", "--threads", "0"], "`threads` must be"),
        (["engine", "--peers", "none", "--peer-python", "lama=/x"], "`--peer-python` cannot hold `lama`"),
        (["engine", "--peers", "none", "--peer-python", "vllm=/x"], "`--peer-python` names vllm, which is not"),
        (["engine", "--new-tokens", "0"], "`new_tokens` must be"),
        (["engine", "--prefill", "-1"], "`prefill` must be"),
        (["engine", "--threads", "1025"], "`threads` must be"),
        (["exits", "--threads", "1025"], "`threads` must be"),
        (["exits", "--new-tokens", "-20"], "`new_tokens` must be"),
        (["exits", "--policies", "depth,depth"], "`--policies` must name policies, each once"),
        (["exits", "--dtype", "int8,int4"], "`bench exits` takes one `--dtype`"),
        (["exits", "--policies", "deepest"], "`policies` cannot be 'deepest'"),
    ],
)
def test_flags_that_make_no_sense(
    words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["bench", *words]) == 1
    assert capsys.readouterr().err.startswith(f"error: {message}")


@pytest.mark.parametrize("words", [[], ["engines"], ["engine", "--batch", "1,x"], ["engine", "--peer-python", "vllm"]])
def test_wrong_usage(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["bench", *words])
    assert end.value.code == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_engine_prints_tables_and_what_is_missing(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(self: EngineRun, *_: Any) -> Any:
        engines = [record("offramp int8"), record("llama.cpp q8_0"), record("vllm float32", absent="not installed")]
        return report(engines, [cell("offramp int8", "decode/1", 30.0), cell("llama.cpp q8_0", "decode/1", 20.0)])

    monkeypatch.setattr(EngineRun, "run", run)
    assert main(["bench", "engine", "-m", model, "--out", str(tmp_path)]) == 0
    out, err = capsys.readouterr()
    assert "offramp int8 / peer" in out and "1.50x (1.50-1.50)" in out
    assert err.splitlines()[0] == "vllm float32: not installed"
    assert (tmp_path / "engine.svg").is_file()


def test_a_failure_of_ours_is_an_error_and_one_of_a_peer_is_not(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def code(absent: str) -> int:
        engines = [record("offramp int8"), record("offramp int4"), record("vllm float32")]
        next(engine for engine in engines if engine.name == absent).absent = "it failed: no memory"
        made = report(engines, [cell("offramp int8", "decode/1", 30.0)])
        monkeypatch.setattr(EngineRun, "run", lambda *_: made)
        return main(["bench", "engine", "-m", model])

    assert [code("vllm float32"), code("offramp int4")] == [0, 1]


def test_threads_are_as_many_as_the_engine_takes_and_torch_stays_out() -> None:
    code = """
import sys
from argparse import Namespace
from offramp.cli.bench import threads_of
from offramp.executors.native import threads
threads.default_threads = lambda: 77
print(threads_of(Namespace()), threads_of(Namespace(threads=3)), "torch" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["77", "3", "False"]


def test_engine_measures_a_toy(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["bench", "engine", "-m", model, "--peers", "transformers", "--prefill", "8", "--json", *TORCH]
    assert main([*words, "--out", str(tmp_path)]) == 0
    values = json.loads(capsys.readouterr().out)
    assert [e["absent"] for e in values["engines"]] == [None, None]
    done = {(c["engine"], c["task"]) for c in values["cells"]}
    names = {"offramp float32@torch", "transformers float32"}
    assert {(n, t) for n in names for t in ("decode/1", "decode/2", "prefill/8")} <= done
    assert ("offramp float32@torch", "step/8") in done
    assert all(r["value"] > 0 for c in values["cells"] for r in c["repeats"])
    assert json.loads((tmp_path / "engine.json").read_text(encoding="utf-8")) == values


def test_exits_replays_a_toy(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trace = {"format": 1, "depth": 3, "exits": [2], "prompt_tokens": 1, "token_ids": [1], "exit_layers": [2, 3]}
    (tmp_path / "trace.jsonl").write_text(json.dumps({**trace, "tests": []}), encoding="utf-8")
    words = ["bench", "exits", "-m", model, "--quick", "--head-words", "32", "--trace", str(tmp_path / "trace.jsonl")]
    assert main([*words, *TORCH, "--out", str(tmp_path / "out")]) == 0
    assert "60% at 2: realisation" in (tmp_path / "out" / "exits.svg").read_text(encoding="utf-8")
    out = capsys.readouterr().out
    for name in ("60% at 1", "60% at 2", "recorded", "trace.jsonl"):
        assert all(
            any(line.startswith(f"{name:<11}  2  {p}") for line in out.splitlines()) for p in ("compact", "depth")
        )
    assert main([*words, *TORCH, "--out", str(tmp_path / "out"), "--resume"]) == 0
    assert capsys.readouterr().out == out
    (tmp_path / "trace.jsonl").write_text(json.dumps({**trace, "exit_layers": [3, 3], "tests": []}), encoding="utf-8")
    assert main([*words, *TORCH, "--out", str(tmp_path / "out"), "--resume"]) == 1
    assert "was measured otherwise: trace differ" in capsys.readouterr().err
