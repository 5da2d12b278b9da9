"""The dial: `off`, `lossless`, a risk, or exit parameters."""

from __future__ import annotations

from dataclasses import replace

from offramp.errors import InvalidParameter
from offramp.exits.calibration import CalibrationKey, calibrated, tuned_drafts
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
        risk = float(dial)
    except (TypeError, ValueError):
        raise InvalidParameter(
            f"`exit` cannot be {dial!r}",
            param="exit",
            hint='allowed: "off", "lossless", a risk such as 0.02, or ExitParams(...)',
        ) from None
    return calibrated(pack.calibrations, risk, key)
