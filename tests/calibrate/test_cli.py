"""`offramp calibrate`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from offramp.cli.main import main
from offramp.exits.read import read_pack

QUICK = ["--max-tokens", "8", "--dtype", "float32", "--max-num-seqs", "4", "--steps", "4", "--delta", "0.1"]


def test_thresholds_and_drafts_are_written_and_printed(
    model: Path, pack: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = [str(model), "--exits", str(pack), "--data", str(data), "--kv", "fill,verify", "--risk", "0.15,0.3"]
    assert main(["calibrate", *asked, *QUICK, "--draft-lengths", "2"]) == 0
    shown = capsys.readouterr().out
    assert [(c.key.kv, c.risk) for c in read_pack(pack).calibrations] == [("fill", 0.15), ("fill", 0.3), ("verify", 0)]
    assert "fill: max_prob, 48 prompts" in shown and "drafts of 2 at" in shown
    assert main(["calibrate", *asked[:-4], *QUICK, "--risk", "0.15,0.3", "--json"]) == 0
    (result,) = json.loads(capsys.readouterr().out)["results"]
    place = result["accepted"]["0.3"]
    assert result["settings"][place]["thresholds"] == {
        str(layer): value
        for c in read_pack(pack).calibrations
        if c.key.kv == "fill" and c.risk == 0.3 and isinstance(c.exit.threshold, dict)
        for layer, value in c.exit.threshold.items()
    }


def test_policies_of_which_the_dial_takes_one_share_delta(model: Path, pack: Path, data: Path) -> None:
    asked = [str(model), "--exits", str(pack), "--data", str(data), "--kv", "fill,recompute,verify", "--risk", "0.3"]
    assert main(["calibrate", *asked, *QUICK, "--draft-lengths", "2"]) == 0
    found = {c.key.kv: c for c in read_pack(pack).calibrations}
    assert {kv: c.delta for kv, c in found.items() if kv != "verify"} == {"fill": 0.05, "recompute": 0.05}
    assert found["fill"].measured["max_tokens"] == 8


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--exits", "PACK"], "there are no prompts\nhint: give `--data FILE`"),
        (["--data", "FILE"], "a calibration is written into an exit pack\nhint: "),
        (["--data", "FILE", "--exits", "1,3"], "a calibration is written into an exit pack\nhint: "),
        (["--data", "FILE", "--exits", "nowhere"], "`nowhere` is not an exit pack: "),
        (["--data", "FILE", "--exits", "PACK", "--kv", "keep"], "`kv` cannot be 'keep'\nhint: "),
        (["--data", "FILE", "--exits", "PACK", "--risk", "1"], "`risk` must be less than 1"),
        (["--data", "FILE", "--exits", "PACK", "--prompts", "0"], "`prompts` must be a whole number of at least 1"),
        (["--data", "FILE", "--exits", "PACK", "--draft-lengths", "99"], "`max_draft` must be a whole number"),
        (["--data", "nothing", "--exits", "PACK"], "`nothing` cannot be read: "),
    ],
)
def test_what_cannot_be_asked(
    arguments: list[str], message: str, model: Path, pack: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {"PACK": str(pack), "FILE": str(data)}
    assert main(["calibrate", str(model), *(files.get(word, word) for word in arguments)]) == 1
    assert capsys.readouterr().err.replace("\n", "\n").startswith(f"error: {message}")


def test_a_risk_is_a_list_of_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["calibrate", "--risk", "0.1,x"])
    assert "`0.1,x` is not a list of numbers such as 0.01,0.05" in capsys.readouterr().err
