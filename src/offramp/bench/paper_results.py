"""What a run of `offramp bench paper` measured.

    {"format": 1, "kind": "paper", "date", "machine", "code", "settings",
     "ways": [{"name": "paper max_prob 0.8", "family": "paper", "batching": "lockstep",
               "exit": {...} or null, "heads": "whole"}],      what is compared; full depth is the first
     "left_out": ["classifier, router: the pack has none"],
     "capacity": 7.1,                                          requests a second at full depth and the largest batch
     "cells": [{"way": "paper max_prob 0.8", "traffic": "B=8", "group": 0,
                "tokens_per_s": [...], "speedup": [...],       one per clean round; to full depth in the same round
                "gap_ms": [...], "gap_p50_ms": [...], "gap_p99_ms": [...], "latency_gain": [...],
                "first_p50_ms": [...], "first_p99_ms": [...],
                "split": {"layers": 0.8, "top": 0.1, "checks": 0.05, "fill": 0.02, "python": 0.03},
                "depths": {"4": 812, "30": 210},               layer that proposed -> tokens of all outputs
                "held": 120, "forced": 0,                      tokens that passed lower, or left below their threshold
                "quality": {"agreement", "rouge_l", "perplexity", "right"}}],
     "peers": {...} or null,                                   a report of `offramp bench engine`
     "rejected": 0}                                            stretches thrown away: the machine was not ours

A gap is the time from a token to the next one of the same output, `gap_ms` their mean; `latency_gain` is full depth's
mean gap in the same round over this one's. `first` is the time from asking to the first token. Traffic is `B=n`, n
clients that ask again when they have their answer, or `load x`, arrivals at x times the capacity. Full depth is
measured beside every group of ways and has a cell for each. Time with nothing to do is no part of a split.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from statistics import fmean
from typing import Any

import numpy as np

from offramp.bench.exit_results import median_split
from offramp.bench.paper_settings import FULL_DEPTH
from offramp.bench.results import Report, Spread, spread
from offramp.bench.traffic import Stretch
from offramp.types.output import Output

LISTS = (
    "tokens_per_s",
    "speedup",
    "gap_ms",
    "gap_p50_ms",
    "gap_p99_ms",
    "latency_gain",
    "first_p50_ms",
    "first_p99_ms",
)


@dataclass
class PaperCell:
    """One way to serve under one traffic; the lists have an entry for each round that counts."""

    way: str
    traffic: str
    group: int
    tokens_per_s: list[float] = field(default_factory=list)
    speedup: list[float] = field(default_factory=list)
    gap_ms: list[float] = field(default_factory=list)
    gap_p50_ms: list[float] = field(default_factory=list)
    gap_p99_ms: list[float] = field(default_factory=list)
    latency_gain: list[float] = field(default_factory=list)
    first_p50_ms: list[float] = field(default_factory=list)
    first_p99_ms: list[float] = field(default_factory=list)
    splits: list[dict[str, float]] = field(default_factory=list)
    depths: dict[int, int] = field(default_factory=dict)
    held: int = 0
    forced: int = 0
    quality: dict[str, float] = field(default_factory=dict)

    def add(self, off: Stretch, on: Stretch) -> None:
        """Take a round into account."""
        rate, off_rate = on.tokens / on.seconds, off.tokens / off.seconds
        self.tokens_per_s.append(rate)
        self.speedup.append(rate / off_rate)
        if on.gaps and off.gaps:  # There are none where every answer is one token.
            self.gap_ms.append(1000 * fmean(on.gaps))
            self.latency_gain.append(fmean(off.gaps) / fmean(on.gaps))
            _quantiles(on.gaps, self.gap_p50_ms, self.gap_p99_ms)
        _quantiles(on.first, self.first_p50_ms, self.first_p99_ms)
        busy = on.seconds - on.idle
        known = {name: seconds / busy for name, seconds in on.split.items()}
        self.splits.append({**known, "python": 1.0 - sum(known.values())})

    def count(self, outputs: Iterable[Output], held: int, forced: int) -> None:
        """Take outputs into account, whether their time counts or not."""
        depths = Counter(self.depths)
        for output in outputs:
            depths.update(output.exit_layers)
        self.depths = dict(sorted(depths.items()))
        self.held += held
        self.forced += forced

    def spread(self, name: str) -> Spread | None:
        """Of one of the lists of numbers."""
        values: list[float] = getattr(self, name)
        return spread(values)

    @property
    def tokens(self) -> int:
        """Of all outputs."""
        return sum(self.depths.values())

    @property
    def depth(self) -> float:
        """The mean layer that proposed a token."""
        return sum(layer * count for layer, count in self.depths.items()) / max(self.tokens, 1)

    @property
    def split(self) -> dict[str, float]:
        """Where the time went: medians of the rounds."""
        return median_split(self.splits)

    def to_dict(self) -> dict[str, Any]:
        """Plain values; the splits as medians."""
        values = asdict(self)
        del values["splits"]
        return {**values, "split": self.split, "depths": {str(layer): n for layer, n in self.depths.items()}}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> PaperCell:
        """The inverse of `to_dict`, which has kept the medians of the splits only."""
        plain = dict(values)
        split = plain.pop("split")
        plain["depths"] = {int(layer): count for layer, count in plain["depths"].items()}
        return cls(**plain, splits=[split] if split else [])


@dataclass
class PaperReport(Report):
    """Everything a run measured so far."""

    KIND = "paper"

    ways: list[dict[str, Any]] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    capacity: float | None = None
    cells: list[PaperCell] = field(default_factory=list)
    peers: dict[str, Any] | None = None
    rejected: int = 0

    def to_dict(self) -> dict[str, Any]:
        """As in the module's description."""
        return {**super().to_dict(), "cells": [cell.to_dict() for cell in self.cells]}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> PaperReport:
        """The inverse of `to_dict`."""
        return super().from_dict({**values, "cells": [PaperCell.from_dict(cell) for cell in values["cells"]]})

    def kept(self, traffic: str, group: int, ways: Sequence[str]) -> list[PaperCell] | None:
        """The cells of a group of ways under some traffic, full depth first; None if one is not there."""
        cells = {c.way: c for c in self.cells if (c.traffic, c.group) == (traffic, group)}
        return [cells[way] for way in ways] if cells.keys() == set(ways) else None

    def merged(self) -> list[PaperCell]:
        """The cells, those of full depth under the same traffic made one."""
        merged: dict[tuple[str, str], PaperCell] = {}
        for cell in self.cells:
            known = merged.setdefault((cell.traffic, cell.way), cell)
            if known is not cell:
                assert cell.way == FULL_DEPTH, "a way belongs to one group"
                joined: dict[str, Any] = {n: [*getattr(known, n), *getattr(cell, n)] for n in (*LISTS, "splits")}
                merged[cell.traffic, cell.way] = replace(known, **joined)
        return list(merged.values())


def _quantiles(seconds: Sequence[float], median: list[float], high: list[float]) -> None:
    p50, p99 = np.quantile(seconds, [0.5, 0.99])
    median.append(1000 * float(p50))
    high.append(1000 * float(p99))
