"""What two processes hold over time, and whether it stays the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from resource import getpagesize
from statistics import median

MIB = 2**20

ALLOWED = 24.0
"""MiB by which a process may hold more at the end than after its warm-up: allocators keep what was once needed."""

SETTLED = 1500
"""Requests after which a process holds what it needs: by then every page of the cache has been touched."""

ENOUGH = 20
"""Looks from which on what is held since then says something."""


def resident(pid: int) -> float | None:
    """MiB that a process holds; None where it is gone."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) * getpagesize() / MIB
    except OSError:
        return None


@dataclass
class Life:
    """One process: (requests ended by then, MiB), as it was looked at."""

    name: str
    samples: list[tuple[int, float]] = field(default_factory=list)

    def settled(self) -> list[tuple[int, float]]:
        """The samples after its warm-up; none where it did not live long enough for them to say something."""
        some = [sample for sample in self.samples if sample[0] >= self.samples[0][0] + SETTLED]
        return some if len(some) >= ENOUGH else []

    def growth(self) -> tuple[float, float, float] | None:
        """MiB after the warm-up and at the end, and the slope of a line through all between, in MiB for 1000 requests.

        Both ends are medians of a tenth of it. None for a life that was too short.
        """
        settled = self.settled()
        if not settled:
            return None
        tenth = max(1, len(settled) // 10)
        first, last = (median(held for _, held in part) for part in (settled[:tenth], settled[-tenth:]))
        return first, last, 1000 * slope(settled)

    def fault(self) -> str | None:
        """What is wrong with it."""
        growth = self.growth()
        if growth is None or growth[1] <= growth[0] + ALLOWED:
            return None
        return f"{self.name} grew from {growth[0]:.0f} to {growth[1]:.0f} MiB"


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Of the line that fits best; 0 for points of which there are too few."""
    xs, ys = [x for x, _ in points], [y for _, y in points]
    middle_x, middle_y = sum(xs) / len(xs), sum(ys) / len(ys)
    spread = sum((x - middle_x) ** 2 for x in xs)
    return sum((x - middle_x) * (y - middle_y) for x, y in points) / spread if spread else 0.0
