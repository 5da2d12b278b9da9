"""Fixed-sequence testing: settings from careful to bold, tested in this order until one fails.

Each risk that is asked for is a sequence of its own at level `delta`: the probability that the setting accepted for it
has a larger risk is at most `delta`, for that risk; no correction is needed along the sequence (Angelopoulos et al.
2021, section 2). The order must not depend on the losses it is tested with.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TypeVar

from offramp.calibrate.bounds import hoeffding_bentkus

S = TypeVar("S")

PValue = Callable[[float, int, float], float]
"""From the mean of some losses, their number and a risk to a p-value of "the risk is larger"."""


@dataclass(frozen=True, slots=True)
class Tested:
    """A setting that was tested, by its place on the path: mean loss and p-value for each risk that was still open.

    `count` losses were measured; where that is not all of them, nothing could have saved the setting.
    """

    place: int
    count: int
    mean: float
    p_values: dict[float, float]


@dataclass(frozen=True, slots=True)
class Verdict:
    """`accepted` gives for each risk the place of the boldest setting that keeps it, or None; `tested` all tests."""

    accepted: dict[float, int | None]
    tested: tuple[Tested, ...]


def fixed_sequence(
    path: Sequence[S],
    measure: Callable[[S], Generator[float, None, None]],
    count: int,
    risks: Iterable[float],
    delta: float,
    p_value: PValue = hoeffding_bentkus,
) -> Verdict:
    """Test the settings of `path` in order; each risk is open until a setting fails for it.

    `measure` gives the losses of a setting, each in [0, 1], on the same `count` prompts; it is left early once the
    setting would fail for all open risks even if every other loss were 0.
    """
    accepted: dict[float, int | None] = dict.fromkeys(sorted(risks))
    waiting = list(accepted)
    tested = []
    for place, setting in enumerate(path):
        losses: list[float] = []
        with closing(measure(setting)) as coming:
            for loss in coming:
                losses.append(loss)
                if p_value(sum(losses) / count, count, waiting[-1]) > delta:
                    break
        p_values = {risk: p_value(sum(losses) / count, count, risk) for risk in waiting}
        tested.append(Tested(place, len(losses), sum(losses) / len(losses), p_values))
        waiting = [risk for risk in waiting if p_values[risk] <= delta]
        accepted |= dict.fromkeys(waiting, place)
        if not waiting:
            break
    return Verdict(accepted, tuple(tested))
