"""How good an exit is, from its confidence and agreement on held-out tokens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

PRECISIONS = (0.95, 0.99)
THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)

NEVER = 1.0
"""The threshold of an exit that never reaches a precision."""


class Judged(NamedTuple):
    """An exit on some tokens, each [tokens]: its confidence, 0 where it may choose nothing; and whether its choice is
    the top's."""

    confidence: npt.NDArray[np.float32]
    agrees: npt.NDArray[np.bool_]


class Point(NamedTuple):
    """Leaving at `threshold`: the share of tokens that leave, and how many of those choose as the top does."""

    threshold: float
    share: float
    precision: float


@dataclass(frozen=True)
class Curve:
    """One exit on held-out tokens.

    Attributes:
        kl: mean KL(top || exit), nats.
        agreement: share of all tokens for which the exit would choose the top's token.
        at_precision: precision -> the lowest threshold that has it.
        points: what fixed thresholds give.
    """

    layer: int
    kl: float
    agreement: float
    at_precision: Mapping[float, Point]
    points: tuple[Point, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {
            "layer": self.layer,
            "kl": self.kl,
            "agreement": self.agreement,
            "at_precision": {f"{precision:g}": point._asdict() for precision, point in self.at_precision.items()},
            "points": [point._asdict() for point in self.points],
        }


def curve_of(layer: int, kl: float, judged: Judged) -> Curve:
    """The curve of an exit."""
    return Curve(
        layer,
        kl,
        float(judged.agrees.mean()),
        {precision: lowest_threshold(judged, precision) for precision in PRECISIONS},
        tuple(_point(judged, threshold) for threshold in THRESHOLDS),
    )


def lowest_threshold(judged: Judged, precision: float) -> Point:
    """The lowest threshold at which tokens leave with at least `precision`; `NEVER` and no token if there is none."""
    order = np.argsort(-judged.confidence, kind="stable")
    confidence = judged.confidence[order]
    precisions = np.cumsum(judged.agrees[order]) / np.arange(1, len(order) + 1)
    # A threshold takes all tokens of equal confidence, so only the last of them stands for it.
    last = np.append(confidence[1:] != confidence[:-1], True)
    good = np.flatnonzero(last & (precisions >= precision) & (confidence > 0))
    if not len(good):
        return Point(NEVER, 0.0, 1.0)
    k = int(good[-1])
    return Point(float(confidence[k]), (k + 1) / len(order), float(precisions[k]))


def _point(judged: Judged, threshold: float) -> Point:
    leaves = judged.confidence >= threshold
    count = int(leaves.sum())
    return Point(threshold, count / len(leaves), float(judged.agrees[leaves].mean()) if count else 1.0)
