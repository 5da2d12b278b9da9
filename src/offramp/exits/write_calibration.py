"""Writing calibrations into an exit pack, as `offramp.exits.read` reads them."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from offramp.exits.calibration import DISAGREEMENT, Calibration, CalibrationKey
from offramp.exits.write import params_json
from offramp.files import replace_file
from offramp.types.exits import ExitParams

FORMAT = 1


def write_calibrations(
    folder: Path,
    old: Sequence[Calibration],
    key: CalibrationKey,
    new: Collection[Calibration],
    risks: Collection[float],
    loss: str = DISAGREEMENT,
) -> None:
    """Write `calibration.json` of a pack: what is `new`, and the `old` but for those of `key` and `loss` at `risks`."""
    kept = [c for c in old if c.key != key or c.risk not in risks or c.loss != loss]
    entries = [{**asdict(c), "exit": params_said(c.exit)} for c in (*kept, *new)]
    text = json.dumps({"format": FORMAT, "calibrations": entries}, indent=1)
    replace_file(folder / "calibration.json", (text + "\n").encode())


def params_said(params: ExitParams) -> dict[str, Any]:
    """Exit parameters as JSON: criterion, thresholds and KV policy always, the rest where it is not the default."""
    plain = {"criterion": params.criterion, "threshold": params.threshold, "kv": params.kv}
    return {**plain, **params_json(params)}
