"""Calibrations: thresholds that were measured to keep a risk.

`calibration.json`, format 1, lies in an exit pack:

    {"format": 1,
     "calibrations": [
       {"key": {"model": "...", "pack": "...", "kv": "fill", "executor": "torch",
                "weights": "float32", "kv_dtype": "float32"},
        "risk": 0.02,            # expected loss of a prompt
        "delta": 0.05,           # probability that the promise fails
        "loss": "disagreement",  # tokens that differ from full depth, or "task": answers that are lost,
                                 # "text", "reference": by ROUGE-L; in [0, 1]
        "prompts": 1000,         # prompts measured on
        "exit": {"criterion": "max_prob", "threshold": {"10": 0.93}, "kv": "fill"}}]}

`key` says what was measured: identities of model and pack, KV policy, executor, and the types of weights and KV. A
calibration says nothing about any other combination. The method is Learn-then-Test (Angelopoulos et al. 2021), as CALM
uses it (Schuster et al. 2022).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace

from offramp.errors import PackError
from offramp.types.checks import check_number
from offramp.types.exits import ExitParams

DISAGREEMENT = "disagreement"
"""The loss of a risk that names none."""


@dataclass(frozen=True, slots=True)
class CalibrationKey:
    """What a calibration was measured on. `kv` None, in a question, stands for any policy."""

    model: str
    pack: str
    kv: str | None
    executor: str
    weights: str
    kv_dtype: str

    def answers(self, question: CalibrationKey) -> bool:
        """Whether a calibration with this key holds for `question`."""
        pairs = ((getattr(self, f.name), getattr(question, f.name)) for f in fields(self))
        return all(asked in (None, own) for own, asked in pairs)


@dataclass(frozen=True, slots=True)
class Calibration:
    """Exit parameters `exit` whose expected `loss` is at most `risk` with probability 1 - `delta`.

    They were measured on `prompts` prompts; `measured` says what they came to there, such as the mean number of
    `layers` run for a token.
    """

    key: CalibrationKey
    risk: float
    delta: float
    loss: str
    prompts: int
    exit: ExitParams
    measured: Mapping[str, float] = field(default_factory=dict)


def calibrated(
    calibrations: Sequence[Calibration], risk: float, key: CalibrationKey, loss: str = DISAGREEMENT
) -> ExitParams:
    """The exit parameters measured for the largest risk of this loss that is at most `risk`.

    Of several, those that run least. A risk of one loss is never answered by another's. Where there are none, but
    drafts were measured for `verify`, these: nothing differs, which keeps every risk. Otherwise calibrations for
    `verify` answer only a `key` that asks for them.

    Raises:
        InvalidParameter: `risk` is not in [0, 1].
        PackError: no calibration holds for `key`, `risk` and `loss`; the message lists those there are.
    """
    check_number("risk", risk, 0, 1)
    matching = [c for c in calibrations if c.key.answers(key) and (key.kv or c.key.kv != "verify")]
    fitting = [c for c in matching if c.loss == loss and c.risk <= risk]
    if fitting:
        return max(fitting, key=lambda c: (c.risk, -c.measured.get("layers", 0.0))).exit
    if key.kv is None and (drafts := tuned_drafts(calibrations, key)):
        return drafts
    if matching:
        risks = ", ".join(say_risk(*pair) for pair in sorted({(c.loss, c.risk) for c in matching}))
        raise PackError(
            f"there is no calibration for a risk of {say_risk(loss, risk)}, only for {risks}",
            hint="ask for one of these",
        )
    if calibrations:
        there = "; ".join(sorted({_describe(c.key) for c in calibrations}))
        raise PackError(f"there is no calibration for {_describe(key)}", hint=f"there are calibrations for {there}")
    raise PackError(
        "the exit pack has no calibration",
        hint="calibrate it, or give a criterion and a threshold instead of a risk",
    )


def say_risk(loss: str, risk: float) -> str:
    """A risk as the dial has it: `0.02`, and `task:0.02` for the loss `task`."""
    return f"{risk:g}" if loss == DISAGREEMENT else f"{loss}:{risk:g}"


def read_risk(text: str) -> tuple[str, float]:
    """The loss and the risk that the dial says.

    Raises:
        ValueError: there is no number.
    """
    loss, _, risk = text.rpartition(":")
    return loss or DISAGREEMENT, float(risk)


def tuned_drafts(calibrations: Sequence[Calibration], key: CalibrationKey) -> ExitParams | None:
    """The exit parameters under which `verify` was fastest, for `key` under any KV policy; None if nobody measured."""
    found = [c.exit for c in calibrations if c.key.kv == "verify" and replace(c.key, kv=None) == replace(key, kv=None)]
    return found[0] if found else None


def dial_positions(calibrations: Sequence[Calibration], key: CalibrationKey) -> dict[str, ExitParams]:
    """The risks that `key` has calibrations for, as the dial says them, smallest first, and what each means."""
    found = sorted({(c.loss, c.risk) for c in calibrations if c.key.answers(key) and c.key.kv != "verify"})
    return {say_risk(loss, risk): calibrated(calibrations, risk, key, loss) for loss, risk in found}


def _describe(key: CalibrationKey) -> str:
    """Identities are told apart by their first twelve digits."""
    return ", ".join(f"{f.name} `{(getattr(key, f.name) or 'any')[:12]}`" for f in fields(key))
