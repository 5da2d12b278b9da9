"""What metrics call a position of the dial, and the risk that it promises."""

from __future__ import annotations

from collections.abc import Iterable

from offramp.exits.calibration import DISAGREEMENT, read_risk, say_risk
from offramp.serve.protocol import Dial
from offramp.types.exits import ExitParams


def position_of(dial: Dial, calibrated: Iterable[str]) -> str:
    """`off`, `lossless`, `criterion`, or a risk of `calibrated`: few, whatever requests ask for.

    A risk goes by the calibration that serves it, the largest that is within it; without one, it is served by drafts.
    """
    if isinstance(dial, ExitParams):
        return "criterion"
    if dial in ("off", "lossless"):
        return str(dial)
    loss, risk = read_risk(str(dial))
    held = [known for name, known in map(read_risk, calibrated) if name == loss and known <= risk]
    return say_risk(loss, max(held)) if held else "lossless"


def promised(position: str, *, greedy: bool, repeatable: bool) -> float | None:
    """The expected share of tokens that differ from full depth, at most; None where none is promised.

    `off` and `lossless` promise that nothing differs, where the executor is `repeatable`: it computes the same,
    whatever it is computed with. Risks hold for greedy outputs, which they were calibrated on; those of losses other
    than `disagreement` speak of whole texts, and not of tokens.
    """
    if position in ("off", "lossless"):
        return 0.0 if repeatable else None
    if position == "criterion" or not greedy:
        return None
    loss, risk = read_risk(position)
    return risk if loss == DISAGREEMENT else None
