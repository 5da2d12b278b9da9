"""From what exits said on some prompts to a path of settings, each bolder than the one before.

An exit at layer e of L saves the share 1 - e/L of a token's layers, and a token that leaves there and differs from full
depth is worth a *price*. Each exit's threshold is the one that makes most of it on the tokens that reach the exit:

    sum over tokens with confidence >= threshold of (1 - e/L) - price * (the token differs)

This is Chow's rule (1970) with a cost for each exit. One number, the price, sets all thresholds, and as it falls no
threshold rises. What a setting does when it runs, where tokens follow its own choices over the KV it left behind, is
another matter: under `fill` it loses a good deal more. It is measured for some settings and interpolated for the
others, and all of this only says which settings are worth testing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

PRICES = tuple(float(price) for price in np.geomspace(2000.0, 0.5, 120))
"""From very dear to cheaper than the layers of a whole token."""

NEVER = -1.0
"""The confidence of an exit that cannot fire."""


@dataclass(frozen=True)
class Observations:
    """What every exit said about every token of some full-depth outputs.

    `confidences[t, k]` is the confidence of exit k about token t (`NEVER` where it cannot fire), `differs[t, k]`
    whether the token it would have chosen is another one, `weights[t]` the token's share of its prompt's loss, over
    the number of prompts, and `texts[t]` the number of its prompt, of `count`.
    """

    layers: tuple[int, ...]
    depth: int
    confidences: Floats
    differs: npt.NDArray[np.bool_]
    weights: Floats
    texts: npt.NDArray[np.int64]
    count: int


@dataclass(frozen=True, slots=True)
class Setting:
    """Thresholds by exit layer, with the loss and the share of all layers saved that are expected of them."""

    thresholds: dict[int, float]
    expected_loss: float
    expected_saving: float


def all_settings(seen: Observations, *, whole: bool = False) -> list[Setting]:
    """A setting for every price, from careful to bold, without repeats.

    A prompt's loss is the share of its tokens that differ or, where the first of them loses it as a `whole`, 1; prices
    are then as many times higher as a prompt has tokens.

    What is expected of settings is what leaving by their thresholds comes to on the observations: tokens that follow
    what full depth chose, over exact KV.
    """
    settings: list[Setting] = []
    known: dict[int, float] = {}
    scale = len(seen.texts) / seen.count if whole else 1.0
    for price in (scale * price for price in PRICES):
        left, wrong = (np.zeros(len(seen.weights), dtype=bool) for _ in range(2))
        saving = 0.0
        for k, layer in enumerate(seen.layers):
            share = 1 - layer / seen.depth
            confidences = np.where(left, NEVER, seen.confidences[:, k])
            fitted = best_threshold(confidences, share - price * seen.differs[:, k].astype(np.float64))
            if fitted is not None:
                known[layer] = min(fitted, known.get(layer, 1.0))
            if layer in known:
                leaves = confidences >= known[layer]
                left |= leaves
                wrong |= leaves & seen.differs[:, k]
                saving += share * float(seen.weights @ leaves)
        if known and (not settings or known != settings[-1].thresholds):
            loss = len(np.unique(seen.texts[wrong])) / seen.count if whole else float(seen.weights @ wrong)
            settings.append(Setting(dict(sorted(known.items())), loss, saving))
    return settings


def choose(settings: Sequence[Setting], limits: Sequence[float]) -> list[int]:
    """For each limit, ascending, the place of the boldest setting whose expected loss is within it; no repeats."""
    within = (max((i for i, s in enumerate(settings) if s.expected_loss <= limit), default=None) for limit in limits)
    return list(dict.fromkeys(place for place in within if place is not None))


def corrected(settings: Sequence[Setting], places: Sequence[int], losses: Sequence[float]) -> list[Setting]:
    """The settings up to the last of `places` (ascending), expected to lose what some were measured to lose.

    Between those, losses are interpolated; no setting is expected to lose less than a more careful one.
    """
    known = np.interp(range(places[-1] + 1), places, np.maximum.accumulate(losses))
    return [replace(setting, expected_loss=float(loss)) for setting, loss in zip(settings, known, strict=False)]


def best_threshold(confidences: Floats, values: Floats) -> float | None:
    """The threshold at or above which the values add up to most; the largest of several; None if none is worth it.

    Args:
        confidences: [n], in [0, 1], or `NEVER`.
        values: [n], what each token is worth if it leaves.
    """
    order = np.argsort(-confidences, kind="stable")
    sorted_confidences, sums = confidences[order], np.cumsum(values[order])
    # A threshold takes all tokens that are equally sure, or none of them.
    last = np.append(sorted_confidences[1:] < sorted_confidences[:-1], True) & (sorted_confidences >= 0)
    if not last.any():
        return None
    best = int(np.argmax(np.where(last, sums, -np.inf)))
    return float(sorted_confidences[best]) if sums[best] > 0 else None
