"""Where exits pay: the layers that make a token cheapest, from measured prices and the share of tokens that leave."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt

from offramp.engine.costs import CostModel
from offramp.tune.curves import Curve

CANDIDATES = 9
"""Layers that are tried, evenly spread."""

Fires = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Prices:
    """Seconds for one row.

    `segments[k]`: from candidate k - 1 (the embedding for 0) to candidate k, the last to the top; `checks[k]`: scoring
    at candidate k, the last at the top; `fills[k]`: filling all layers above candidate k.
    """

    segments: tuple[float, ...]
    checks: tuple[float, ...]
    fills: tuple[float, ...]

    @classmethod
    def of(cls, costs: CostModel) -> Prices:
        """The prices of one row in a cost table."""
        lines = (costs.segments, costs.checks, costs.passes)
        return cls(*(tuple(line.price(1) for line in part) for part in lines))

    @property
    def full_depth(self) -> float:
        """Seconds for a token without exits."""
        return sum(self.segments) + self.checks[-1]


@dataclass(frozen=True)
class Plan:
    """Exit layers, and why these. `candidates` has a row for each layer that was tried, none if layers were given."""

    layers: tuple[int, ...]
    why: str
    candidates: tuple[dict[str, Any], ...] = ()


SHALLOW = (0, 1, 2)
"""Layers that are tried too where heads read the past, and so know the text without the layers above."""


def candidate_layers(depth: int, *, deep: bool = False) -> tuple[int, ...]:
    """The layers that are tried for a model of `depth` layers, by heads that read the past or others."""
    spread = {round(depth * i / (CANDIDATES + 1)) for i in range(1, CANDIDATES + 1)}
    tried = {*spread, *SHALLOW} if deep else spread - {0}
    return tuple(sorted(layer for layer in tried if layer < depth))


def expected_seconds(prices: Prices, chosen: Sequence[int], fires: Fires) -> float:
    """Mean seconds for a token with exits at the candidates `chosen` (ascending), of which `fires` [tokens, candidates]
    says which tokens leave at each. A token that leaves pays for the fill above."""
    seconds, stays, done = 0.0, np.ones(len(fires), dtype=bool), 0
    for k in chosen:
        seconds += float(stays.mean()) * (sum(prices.segments[done : k + 1]) + prices.checks[k])
        leaves = stays & fires[:, k]
        seconds += float(leaves.mean()) * prices.fills[k]
        stays &= ~fires[:, k]
        done = k + 1
    return seconds + float(stays.mean()) * (sum(prices.segments[done:]) + prices.checks[-1])


def choose(
    layers: Sequence[int], prices: Prices, fires: Fires, curves: Sequence[Curve], precision: float, most: int
) -> Plan:
    """The set of 1 to `most` candidates `layers` with the least expected time for a token."""
    sets = [c for size in range(1, most + 1) for c in combinations(range(len(layers)), size)]
    best = min(sets, key=lambda c: expected_seconds(prices, c, fires))
    seconds, full = expected_seconds(prices, best, fires), prices.full_depth
    chosen = tuple(layers[k] for k in best)
    rows = tuple(
        {
            "layer": layer,
            "agreement": curve.agreement,
            "share": float(fires[:, k].mean()),
            "check_ms": 1e3 * prices.checks[k],
            "alone": full / expected_seconds(prices, (k,), fires),
        }
        for k, (layer, curve) in enumerate(zip(layers, curves, strict=True))
    )
    named = ("layer " if len(chosen) == 1 else "layers ") + " and ".join(map(str, chosen))
    why = (
        f"after a short training, a token that may leave at {named} with a precision of {precision:.0%} costs "
        f"{1e3 * seconds:.2f} ms at batch 1, against {1e3 * full:.2f} ms at full depth, {full / seconds:.2f} times as "
        f"fast; no other set of up to {most} of the layers tried is cheaper"
    )
    return Plan(chosen, why, rows)
