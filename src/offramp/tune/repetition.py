"""Answers that go round in circles. Greedy answers of small models often end so, and there is nothing to be learnt from
the hundredth time."""

from __future__ import annotations

from collections.abc import Sequence

LOOPS, LONGEST_LOOP = 3, 64
"""How often the same tokens stay in a row, and how many such tokens are looked for."""

SURE, EVERY = 64, 16
"""So many tokens that repeat others are a loop without end; after how many more tokens this is looked at again."""


def cut_loop(ids: tuple[int, ...]) -> tuple[int, ...]:
    """`ids` without the end of a loop: of the same tokens `LOOPS` times or more at the end, `LOOPS` times stay."""
    period, same = _loop(ids, 0)
    return ids[: len(ids) - same + (LOOPS - 1) * period] if period else ids


def never_ends(ids: Sequence[int], start: int = 0) -> bool:
    """Whether an answer that is `ids` from `start` on will only repeat itself; looked at where there are a multiple of
    `EVERY`.

    `cut_loop` leaves as much of it as of the same loop, however long.
    """
    return (len(ids) - start) % EVERY == 0 and _loop(ids, start)[1] >= SURE


class Watch:
    """A stop check for an answer that is being given: called with each token, true once it `never_ends`."""

    def __init__(self) -> None:
        self._ids: list[int] = []

    def __call__(self, token: int) -> bool:
        self._ids.append(token)
        return never_ends(self._ids)


def _loop(ids: Sequence[int], start: int) -> tuple[int, int]:
    """The shortest period that `ids` from `start` on end in `LOOPS` times, and how many tokens at the end repeat that
    of a period before; 0, 0 where there is none."""
    for period in range(1, LONGEST_LOOP + 1):
        same = 0
        while same + period < len(ids) - start and ids[-1 - same] == ids[-1 - same - period]:
            same += 1
        if same >= LOOPS * period:
            return period, same
    return 0, 0
