"""The exit criterion `rising`: leave once the model has kept growing surer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

from offramp.exits.criteria import Signals
from offramp.types.checks import check_integer
from offramp.types.executor import Feature


@dataclass(frozen=True)
class Rising:
    """The largest probability, where it has risen at each of the last `exits` exits; otherwise it does not fire.

    The fields are the criterion's options. `needs` says what is to be computed, `reads_token` that the choice of the
    token is needed too.

    Raises:
        InvalidParameter: `exits` is not a whole number of at least 1.
    """

    name: ClassVar[str] = "rising"
    needs: ClassVar[frozenset[Feature]] = frozenset({"max_prob"})
    reads_token: ClassVar[bool] = True

    exits: int = 2

    def __post_init__(self) -> None:
        check_integer("exits", self.exits, 1)

    def confidence(self, rows: Sequence[Signals]) -> list[float | None]:
        """One confidence per row; None where there have been too few exits, or the probability fell."""
        return [self._of(row) for row in rows]

    def _of(self, row: Signals) -> float | None:
        last = (*row.earlier, row)[-self.exits - 1 :]
        seen = [signals.features["max_prob"] for signals in last]
        rising = len(seen) == self.exits + 1 and all(low < high for low, high in pairwise(seen))
        return seen[-1] if rising else None
