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

ENOUGH = 20
"""Samples from which on a life says something."""


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

    def growth(self) -> tuple[float, float, float]:
        """MiB after the warm-up and at the end, and the slope of a line through all since: MiB for each 1000 requests.

        The warm-up is the first quarter of a life; both ends are medians of a tenth of it.
        """
        size = len(self.samples)
        settled = self.samples[size // 4 :]
        tenth = max(1, size // 10)
        first, last = (median(held for _, held in part) for part in (settled[:tenth], settled[-tenth:]))
        return first, last, 1000 * slope(settled)

    def fault(self) -> str | None:
        """What is wrong with it; a process that was too short to be looked at often has nothing wrong."""
        if len(self.samples) < ENOUGH:
            return None
        first, last, _ = self.growth()
        return f"{self.name} grew from {first:.0f} to {last:.0f} MiB" if last > first + ALLOWED else None


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Of the line that fits best; 0 for points of which there are too few."""
    xs, ys = [x for x, _ in points], [y for _, y in points]
    middle_x, middle_y = sum(xs) / len(xs), sum(ys) / len(ys)
    spread = sum((x - middle_x) ** 2 for x in xs)
    return sum((x - middle_x) * (y - middle_y) for x, y in points) / spread if spread else 0.0
