"""`calibration.json`: what is written is what is read, and what answers the dial."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from offramp.errors import PackError
from offramp.exits.calibration import Calibration, CalibrationKey, calibrated, tuned_drafts
from offramp.exits.pack import static_exits
from offramp.exits.read import read_pack
from offramp.exits.write_calibration import params_said, write_calibrations
from offramp.llm.dial import resolve_dial
from offramp.types.exits import LOSSLESS, ExitParams

KEY = CalibrationKey("m", "p", "fill", "native", "int8", "float16")
ANY = replace(KEY, kv=None)


def made(risk: float, exit: ExitParams, **measured: float) -> Calibration:
    return Calibration(replace(KEY, kv=exit.kv), risk, 0.05, "disagreement", 800, exit, measured)


FILL = made(0.02, ExitParams(threshold={1: 0.7, 3: 0.123456789012345678}), loss=0.01, layers=20.5)
RECOMPUTE = made(0.02, ExitParams(threshold={3: 0.5}, kv="recompute", recompute_cap=9), layers=18.0)
DRAFTS = made(0.0, ExitParams(threshold=0.4, kv="verify", max_draft=7, options={"exits": 2}, criterion="patience"))


def test_what_is_written_is_read(pack: Path) -> None:
    write_calibrations(pack, [FILL], KEY, [RECOMPUTE, DRAFTS], [])
    assert read_pack(pack).calibrations == (FILL, RECOMPUTE, DRAFTS)


def test_the_same_key_and_risk_are_replaced_and_the_rest_is_kept(pack: Path) -> None:
    other_risk, other_key = replace(FILL, risk=0.05), replace(FILL, key=replace(KEY, weights="int4"))
    new = replace(FILL, prompts=900)
    write_calibrations(pack, [FILL, other_risk, other_key, RECOMPUTE], KEY, [new], [0.02, 0.01])
    assert read_pack(pack).calibrations == (other_risk, other_key, RECOMPUTE, new)


def test_a_calibration_of_another_loss_is_kept(pack: Path) -> None:
    task = replace(FILL, loss="task")
    write_calibrations(pack, [FILL, task], KEY, [replace(task, prompts=900)], [0.02], "task")
    assert read_pack(pack).calibrations == (FILL, replace(task, prompts=900))
    served = read_pack(pack)
    assert resolve_dial(0.02, served, ANY) == resolve_dial("task:0.02", served, ANY) == FILL.exit


def test_a_failed_write_leaves_the_old_file(pack: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_calibrations(pack, [], KEY, [FILL], [])
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_calibrations(pack, [], KEY, [], [])
    assert read_pack(pack).calibrations == (FILL,)
    assert sorted(path.name for path in pack.iterdir()) == ["calibration.json", "exits.json"]


def test_parameters_at_their_defaults_are_left_out() -> None:
    assert params_said(ExitParams(threshold={5: 0.5})) == {
        "criterion": "max_prob",
        "threshold": {"5": 0.5},
        "kv": "fill",
    }


def test_of_two_policies_the_one_that_runs_fewer_layers_answers() -> None:
    assert calibrated([FILL, RECOMPUTE], 0.03, ANY) == RECOMPUTE.exit
    assert calibrated([RECOMPUTE, FILL], 0.03, KEY) == FILL.exit


def test_drafts_answer_lossless_and_risks_that_nothing_else_keeps() -> None:
    pack = replace(static_exits([1, 3], 4), calibrations=(FILL, DRAFTS))
    assert resolve_dial("lossless", pack, ANY) == tuned_drafts(pack.calibrations, ANY) == DRAFTS.exit
    assert resolve_dial("lossless", pack, replace(ANY, executor="torch")) == LOSSLESS
    assert resolve_dial(0.02, pack, ANY) == FILL.exit
    assert resolve_dial(0.01, pack, ANY) == DRAFTS.exit
    with pytest.raises(PackError, match=r"no calibration for a risk of 0\.01, only for 0\.02"):
        resolve_dial(0.01, replace(pack, calibrations=(FILL,)), ANY)
