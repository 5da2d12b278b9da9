"""What a run of `offramp bench exits` measured.

    {"format": 1, "kind": "exits", "date", "machine", "code", "settings",
     "cells": [{"trace": "60% at 10", "batch": 8, "policy": "depth",
                "off_ms": [...], "on_ms": [...],      per token of output, one per clean round
                "speedup": [...], "realisation": [...], "realisation_with_choices": [...],
                "efficiency": 0.93, "priced_speedup": 2.1,
                "split": {"layers": 0.8, "top": 0.1, "checks": 0.05, "fill": 0.02, "python": 0.03},
                "off_split": {...}}],
     "rejected": 0}                               runs that were thrown away because the machine was not ours

For each round, with the times per token off (every layer) and on (exits):

    speedup         off / on
    priced speedup  the same two plans priced by the cost table, with tests, choices at exits, fill and Python free
    realisation     speedup / priced speedup
    ... with choices   the choices at exits priced too: each takes the place of a choice at the top
    efficiency      priced speedup / priced speedup if every segment and the top always ran at full batch
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any

from offramp.bench.prices import PriceTable
from offramp.bench.results import Spread, spread
from offramp.bench.windows import Window

FORMAT = 1


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
        self.splits.append(shares(on))
        self.off_splits.append(shares(off))

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
        for name in ("split", "off_split"):
            values[name] = median_split(values.pop(name + "s"))
        return values


def shares(window: Window) -> dict[str, float]:
    """What a window's time was spent on; `python` is what no executor call accounts for."""
    known = {name: seconds / window.seconds for name, seconds in window.split.items()}
    return {**known, "python": 1.0 - sum(known.values())}


def median_split(splits: Sequence[dict[str, float]]) -> dict[str, float]:
    """The median of each share."""
    return {name: median(split[name] for split in splits) for name in (splits[0] if splits else ())}


@dataclass
class ExitReport:
    """Everything a run measured so far."""

    date: str
    machine: dict[str, Any]
    code: dict[str, Any]
    settings: dict[str, Any]
    cells: list[ExitCell] = field(default_factory=list)
    rejected: int = 0

    def to_dict(self) -> dict[str, Any]:
        """As in the module's description."""
        cells = [cell.to_dict() for cell in self.cells]
        return {"format": FORMAT, "kind": "exits", **asdict(self), "cells": cells}
