"""What a run of `offramp bench exits` measured.

    {"format": 1, "kind": "exits", "date", "machine", "code", "settings",
     "cells": [{"trace": "60% at 10", "batch": 8, "policy": "depth",
                "off_ms": [...], "on_ms": [...],      per token of output, one per clean round
                "speedup": [...], "realisation": [...], "realisation_with_choices": [...],
                "realisation_by_shares": [...], "efficiency": [...], "priced_speedup": [...],
                "split": {"encoder": 0.0, "layers": 0.8, "top": 0.1, "checks": 0.05, "fill": 0.02, "python": 0.03},
                "off_split": {...}}],
     "rejected": 0}                               runs that were thrown away because the machine was not ours

For each round, with the times per token off (every layer) and on (exits):

    speedup         off / on
    priced speedup  the same two plans priced by the cost table, with tests, choices at exits, fill and Python free
    realisation     speedup / priced speedup
    ... with choices   the choices at exits priced too: each takes the place of a choice at the top
    ... by shares   share of the time that layers and the top take, on / off: the realisation if every call took what
                    the table says, so neighbours who take bandwidth away for a while do not show
    efficiency      priced speedup / priced speedup if every segment and the top always ran at full batch
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any

from offramp.bench.prices import PriceTable
from offramp.bench.results import Report, Spread, spread
from offramp.bench.windows import Window

SPLITS = ("split", "off_split")


@dataclass
class ExitCell:
    """One trace at one batch size under one policy; the lists have an entry for each round that counts."""

    trace: str
    batch: int
    policy: str
    off_ms: list[float] = field(default_factory=list)
    on_ms: list[float] = field(default_factory=list)
    speedup: list[float] = field(default_factory=list)
    priced_speedup: list[float] = field(default_factory=list)
    realisation: list[float] = field(default_factory=list)
    realisation_with_choices: list[float] = field(default_factory=list)
    realisation_by_shares: list[float] = field(default_factory=list)
    efficiency: list[float] = field(default_factory=list)
    splits: list[dict[str, float]] = field(default_factory=list)
    off_splits: list[dict[str, float]] = field(default_factory=list)

    def add(self, off: Window, on: Window, table: PriceTable, layers_at: Sequence[int]) -> None:
        """Take a round into account."""
        self.off_ms.append(1000 * off.per_token)
        self.on_ms.append(1000 * on.per_token)
        speedup = off.per_token / on.per_token
        off_price = off.priced(table, exit_choices=False)
        priced = off_price / on.priced(table, exit_choices=False)
        full = off_price / on.priced_at_full_batch(table, layers_at, self.batch)
        self.speedup.append(speedup)
        self.priced_speedup.append(priced)
        self.realisation.append(speedup / priced)
        self.realisation_with_choices.append(speedup * on.priced(table, exit_choices=True) / off_price)
        self.efficiency.append(priced / full)
        split, off_split = shares(on), shares(off)
        useful, off_useful = split["layers"] + split["top"], off_split["layers"] + off_split["top"]
        self.realisation_by_shares.append(useful / off_useful)
        self.splits.append(split)
        self.off_splits.append(off_split)

    def spread(self, name: str) -> Spread | None:
        """Of one of the lists of numbers."""
        values: list[float] = getattr(self, name)
        return spread(values)

    @property
    def split(self) -> dict[str, float]:
        """Where the time went with exits on: medians of the rounds."""
        return median_split(self.splits)

    def to_dict(self) -> dict[str, Any]:
        """Plain values; the splits as medians."""
        values = asdict(self)
        for name in SPLITS:
            values[name] = median_split(values.pop(name + "s"))
        return values

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ExitCell:
        """The inverse of `to_dict`, which has kept the medians of the splits only."""
        plain = {name: value for name, value in values.items() if name not in SPLITS}
        for name in SPLITS:
            plain[name + "s"] = [values[name]] if values[name] else []
        return cls(**plain)


def shares(window: Window) -> dict[str, float]:
    """What a window's time was spent on; `python` is what no executor call accounts for."""
    known = {name: seconds / window.seconds for name, seconds in window.split.items()}
    return {**known, "python": 1.0 - sum(known.values())}


def median_split(splits: Sequence[dict[str, float]]) -> dict[str, float]:
    """The median of each share."""
    return {name: median(split[name] for split in splits) for name in (splits[0] if splits else ())}


@dataclass
class ExitReport(Report):
    """Everything a run measured so far."""

    KIND = "exits"

    cells: list[ExitCell] = field(default_factory=list)
    rejected: int = 0

    def to_dict(self) -> dict[str, Any]:
        """As in the module's description."""
        return {**super().to_dict(), "cells": [cell.to_dict() for cell in self.cells]}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ExitReport:
        """The inverse of `to_dict`."""
        return super().from_dict({**values, "cells": [ExitCell.from_dict(cell) for cell in values["cells"]]})

    def kept(self, trace: str, batch: int, policies: Sequence[str]) -> list[ExitCell] | None:
        """The cells of a trace at a batch size; None if one of the policies is not there."""
        cells = {cell.policy: cell for cell in self.cells if (cell.trace, cell.batch) == (trace, batch)}
        return [cells[policy] for policy in policies] if cells.keys() >= set(policies) else None
