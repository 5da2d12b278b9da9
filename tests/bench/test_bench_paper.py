"""`offramp bench paper` from the command line: bad flags, and a small run of the real thing on a toy checkpoint."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from offramp.cli.main import main
from tests.bench.paper_toys import eight_bits_t5, toy_data, toy_pack
from tests.bench.toys import loud_machine_allowed
from tests.calibrate.conftest import save_spread_model

__all__ = ["loud_machine_allowed"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_spread_model(tmp_path_factory.mktemp("toy") / "model")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--resume"], "`--resume` needs `--out`"),
        (["--batch", "0"], "`batch` must be"),
        (["--loads", "0"], "`loads` must be"),
        (["--thresholds", "2"], "`thresholds` must be"),
        (["--threads", "0"], "`threads` must be"),
        (["--data", "x.jsonl"], "`--data` needs `--exits`"),
        (["-m", "MODEL"], "no task comes with the model"),
        (["-m", "MODEL", "--exits", "none"], "there is nothing to compare without exits"),
        (["-m", "MODEL", "--data", "EMPTY"], "`EMPTY` holds no prompt"),
        (["-m", "MODEL", "--data", "missing.jsonl"], "`missing.jsonl` cannot be read"),
        (["-m", "MODEL", "--peers", "lama.cpp"], "`--peers` cannot hold `lama.cpp`"),
        (["-m", "MODEL", "--peer-python", "vllm=/x"], "`--peer-python` names vllm, which is not to be measured"),
    ],
)
def test_flags_that_make_no_sense(
    words: list[str],
    message: str,
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    empty = tmp_path / "empty.txt"
    empty.write_text("\n", encoding="utf-8")
    given = {"MODEL": str(model), "EMPTY": "empty.txt"}
    assert main(["bench", "paper", *[given.get(word, word) for word in words]]) == 1
    assert capsys.readouterr().err.startswith(f"error: {message.replace('EMPTY', 'empty.txt')}")


@pytest.mark.parametrize("words", [["quick"], ["--loads", "a"], ["--batch", "1,x"], ["--trace", "x"]])
def test_wrong_usage(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["bench", "paper", *words])
    assert end.value.code == 2
    assert capsys.readouterr().err.startswith("error: ")


@pytest.mark.parametrize("executor", ["native", "torch"])
def test_a_toy_is_measured_and_the_run_goes_on(
    executor: str, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pack, data, out = toy_pack(tmp_path / "pack"), toy_data(tmp_path / "data.jsonl"), tmp_path / "out"
    words = ["bench", "paper", "--quick", "-m", str(model), "--exits", str(pack), "--data", str(data)]
    words += ["--executor", executor, "--dtype", "float32", "--threads", "1", "--repeats", "1", "--batch", "1,2"]
    words += ["--max-tokens", "6", "--peers", "none", "--out", str(out)]
    assert main([*words, "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert json.loads((out / "paper.json").read_text(encoding="utf-8")) == values
    assert {c["traffic"] for c in values["cells"]} == {"B=1", "B=2", "load 0.7"}
    assert values["settings"]["dtype"] == f"{executor} float32" and values["settings"]["workload"] == "data.jsonl"
    for name in ("frontier", "batch", "split", "depth"):
        assert (out / f"paper-{name}.svg").is_file()
    assert main([*words, "--resume"]) == 0
    table = capsys.readouterr().out
    for way in values["ways"]:
        assert way["name"] in table
    assert json.loads((out / "paper.json").read_text(encoding="utf-8"))["cells"] == values["cells"]


def test_peers_are_measured_beside_full_depth(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pack, data = toy_pack(tmp_path / "pack"), toy_data(tmp_path / "data.jsonl")
    words = ["bench", "paper", "--quick", "-m", str(model), "--exits", str(pack), "--data", str(data), "--json"]
    words += ["--executor", "torch", "--threads", "1", "--repeats", "1", "--batch", "1", "--loads", "none"]
    assert main([*words, "--max-tokens", "4", "--peers", "transformers", "--out", str(tmp_path)]) == 0
    peers = json.loads(capsys.readouterr().out)["peers"]
    assert [engine["absent"] for engine in peers["engines"]] == [None, None]
    names = {"offramp float32@torch", "transformers float32"}
    assert {(cell["engine"], cell["task"]) for cell in peers["cells"]} == {(name, "decode/1") for name in names}


def test_a_t5_is_measured_beside_transformers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OFFRAMP_CACHE", str(tmp_path / "cache"))
    eight_bits_t5(tmp_path / "t5")
    words = ["bench", "paper", "--quick", "-m", str(tmp_path / "t5"), "--exits", "1,2", "--json", "--threads", "1"]
    words += ["--data", str(toy_data(tmp_path / "data.jsonl")), "--repeats", "1", "--batch", "2", "--loads", "none"]
    words += ["--max-tokens", "4", "--peers", "transformers,llama.cpp:q8_0,vllm:float32", "--out", str(tmp_path)]
    assert main(words) == 0
    peers = json.loads(capsys.readouterr().out)["peers"]
    absent = {engine["name"]: engine["absent"] for engine in peers["engines"]}
    assert absent == {
        "offramp int8": None,
        "transformers float32": None,
        "llama.cpp q8_0": "it reads GGUF files, and none is written of an encoder-decoder",
        "vllm float32": "vLLM has no T5",
    }
    assert [(cell["engine"], cell["task"]) for cell in peers["cells"]] == [
        ("offramp int8", "decode/2"),
        ("transformers float32", "decode/2"),
    ]
    assert all(repeat["value"] > 0 for cell in peers["cells"] for repeat in cell["repeats"])
