"""Which calibration answers a risk."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from offramp.errors import InvalidParameter, PackError
from offramp.exits.calibration import Calibration, CalibrationKey, calibrated, read_risk, say_risk
from offramp.types.exits import ExitParams

KEY = {"model": "m", "pack": "p", "kv": "fill", "executor": "torch", "weights": "float32", "kv_dtype": "float32"}


def key(**changes: Any) -> CalibrationKey:
    return CalibrationKey(**{**KEY, **changes})


MEASURED = tuple(
    Calibration(key(kv=exit.kv), risk, 0.05, "disagreement", 1000, exit)
    for risk, exit in (
        (0.01, ExitParams(threshold=0.99)),
        (0.05, ExitParams(threshold={2: 0.9})),
        (0.04, ExitParams(threshold=0.95, kv="recompute")),
    )
)


@pytest.mark.parametrize(
    ("risk", "kv", "threshold"),
    [(0.01, "fill", 0.99), (0.049, "fill", 0.99), (0.05, "fill", {2: 0.9}), (1, "fill", {2: 0.9}), (0.045, None, 0.95)],
)
def test_the_largest_risk_that_is_allowed_is_used(risk: float, kv: str | None, threshold: Any) -> None:
    assert calibrated(MEASURED, risk, key(kv=kv)).threshold == threshold


def test_a_risk_below_all_that_were_measured_is_refused() -> None:
    with pytest.raises(PackError) as error:
        calibrated(MEASURED, 0.001, key(kv="fill"))
    assert error.value.message == "there is no calibration for a risk of 0.001, only for 0.01, 0.05"


@pytest.mark.parametrize("changes", [{name: "x"} for name in KEY])
def test_a_calibration_holds_for_its_key_alone(changes: dict[str, str]) -> None:
    with pytest.raises(PackError, match=r"^there is no calibration for model `.*`.*\nhint: there are calibrations for"):
        calibrated(MEASURED, 0.5, key(**changes))


def test_a_pack_without_calibration_says_so() -> None:
    with pytest.raises(PackError) as error:
        calibrated((), 0.5, key())
    assert error.value.message == "the exit pack has no calibration"


def test_a_risk_must_be_a_share() -> None:
    with pytest.raises(InvalidParameter) as error:
        calibrated(MEASURED, 1.5, key())
    assert error.value.message == "`risk` must be a number at least 0 and at most 1, not 1.5"


def test_a_risk_of_one_loss_is_never_answered_by_another() -> None:
    task = replace(MEASURED[0], loss="task", risk=0.02, exit=ExitParams(threshold=0.5))
    both = (*MEASURED, task)
    assert calibrated(both, 0.02, key(kv="fill")).threshold == 0.99
    assert calibrated(both, 0.02, key(kv="fill"), "task").threshold == 0.5
    with pytest.raises(PackError) as error:
        calibrated(both, 0.01, key(kv="fill"), "task")
    assert error.value.message == "there is no calibration for a risk of task:0.01, only for 0.01, 0.05, task:0.02"
    with pytest.raises(PackError, match=r"no calibration for a risk of 0\.5, only for task:0\.02"):
        calibrated([task], 0.5, key(kv="fill"))


def test_drafts_that_were_measured_keep_every_risk_that_nothing_else_keeps() -> None:
    drafts = ExitParams(threshold=0.3, kv="verify", max_draft=2)
    verify = replace(MEASURED[0], key=key(kv="verify"), risk=0.0, exit=drafts)
    assert calibrated((*MEASURED, verify), 0.001, key(kv=None)) == drafts
    assert calibrated((*MEASURED, verify), 0.5, key(kv=None), "task") == drafts
    assert calibrated((*MEASURED, verify), 0.049, key(kv=None)).kv == "recompute"
    with pytest.raises(PackError):
        calibrated((*MEASURED, verify), 0.001, key(kv="fill"))


@pytest.mark.parametrize(
    ("text", "loss", "risk"),
    [("0.02", "disagreement", 0.02), ("task:0.02", "task", 0.02), ("1e-3", "disagreement", 0.001)],
)
def test_a_risk_may_name_its_loss(text: str, loss: str, risk: float) -> None:
    assert read_risk(text) == (loss, risk)
    assert read_risk(say_risk(loss, risk)) == (loss, risk)


@pytest.mark.parametrize("text", ["fast", "task:", "0.02:task", ""])
def test_without_a_number_there_is_no_risk(text: str) -> None:
    with pytest.raises(ValueError, match="could not convert"):
        read_risk(text)
