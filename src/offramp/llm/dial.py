"""The dial: `off`, `lossless`, a risk, or exit parameters.

A risk is a number, `0.02`, which speaks of tokens that differ from full depth, or it names its loss: `task:0.02`
speaks of answers that are lost. So a position means the same for every pack, whatever a pack was calibrated for.
"""

from __future__ import annotations

from dataclasses import replace

from offramp.errors import InvalidParameter
from offramp.exits.calibration import CalibrationKey, calibrated, read_risk, tuned_drafts
from offramp.exits.pack import ExitPack
from offramp.types.exits import LOSSLESS, ExitParams

Dial = str | float | ExitParams


def resolve_dial(dial: Dial, pack: ExitPack, key: CalibrationKey) -> ExitParams | None:
    """What a position of the dial means for a pack; None runs every layer.

    Raises:
        InvalidParameter: not a position of the dial.
        PackError: no calibration for the risk asked for.
    """
    if isinstance(dial, ExitParams):
        return dial
    if dial == "off":
        return None
    if dial == "lossless":
        return tuned_drafts(pack.calibrations, key) or replace(pack.defaults or LOSSLESS, kv="verify")
    try:
        if isinstance(dial, bool):
            raise TypeError
        loss, risk = read_risk(str(dial))
    except (TypeError, ValueError):
        raise InvalidParameter(
            f"`exit` cannot be {dial!r}",
            param="exit",
            hint='allowed: "off", "lossless", a risk such as 0.02 or "task:0.02", or ExitParams(...)',
        ) from None
    return calibrated(pack.calibrations, risk, key, loss)
