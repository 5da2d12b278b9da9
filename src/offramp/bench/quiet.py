"""Was the machine ours while we measured? Processor time of everybody else, read from /proc."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep

from offramp.bench.machine import usable_cpus

LIMIT = 0.05
"""More of one core than this, used by others or stolen by the host, disturbs a repeat."""

GRAIN = 0.02
"""Seconds by which /proc may be wrong about any stretch: it counts in ticks."""


IMPATIENT = 3.0
"""Seconds to wait for quiet after having waited in vain."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Processor seconds since boot on our processors, and of our own processes; `at` is when."""

    at: float
    busy: float
    steal: float
    own: float


@dataclass(frozen=True, slots=True)
class Disturbance:
    """What others used between two readings, as a share of one core; None where the system does not say."""

    others: float | None
    steal: float | None
    clean: bool


class Watch:
    """Reads usage. Without /proc (not Linux) every stretch passes as clean, with shares of None."""

    def __init__(
        self,
        proc: Path = Path("/proc"),
        cpus: Sequence[int] | None = None,
        clock: Callable[[], float] = monotonic,
        pause: Callable[[float], None] = sleep,
    ) -> None:
        self._proc, self._clock, self._pause = proc, clock, pause
        self._cpus = {f"cpu{cpu}" for cpu in (usable_cpus() if cpus is None else cpus)}
        self._patience = math.inf
        self._tick = 1.0 / os.sysconf("SC_CLK_TCK")

    def read(self) -> Usage | None:
        """Usage up to now."""
        try:
            lines = (self._proc / "stat").read_text(encoding="ascii").splitlines()
        except OSError:
            return None
        busy = steal = 0.0
        for line in lines:
            name, *fields = line.split()
            if name in self._cpus:
                ticks = [int(field) for field in fields]
                busy += sum(ticks[:3]) + sum(ticks[5:7])
                steal += ticks[7]
        return Usage(self._clock(), busy * self._tick, steal * self._tick, self._own() * self._tick)

    def between(self, before: Usage | None, after: Usage | None) -> Disturbance:
        """Judge a stretch."""
        if before is None or after is None:
            return Disturbance(None, None, True)
        seconds = max(after.at - before.at, 1e-6)
        others = max(0.0, (after.busy - before.busy) - (after.own - before.own))
        steal = after.steal - before.steal
        allowed = LIMIT * seconds + GRAIN
        return Disturbance(others / seconds, steal / seconds, others <= allowed and steal <= allowed)

    def wait_until_quiet(self, most: float, window: float = 0.3) -> bool:
        """Return as soon as others left our processors alone for `window` seconds; False after `most` seconds.

        On a machine that never was quiet when we waited last, we do not wait that long again.
        """
        end = self._clock() + min(most, self._patience)
        while True:
            before = self.read()
            self._pause(window)
            if self.between(before, self.read()).clean:
                self._patience = math.inf
                return True
            if self._clock() >= end:
                self._patience = IMPATIENT
                return False

    def _own(self) -> int:
        """Ticks used by this process, its descendants, and those of them that have ended."""
        table = _processes(self._proc)
        return sum(table[pid][1] for pid in _family(table, os.getpid()) if pid in table)


def descendants(pid: int, proc: Path = Path("/proc")) -> set[int]:
    """A process and those that descend from it."""
    return _family(_processes(proc), pid)


def _family(table: Mapping[int, tuple[int, int]], pid: int) -> set[int]:
    found = {pid}
    while grown := {child for child, (parent, _) in table.items() if parent in found} - found:
        found |= grown
    return found


def _processes(proc: Path) -> dict[int, tuple[int, int]]:
    """The parent of each process, and the ticks that it and its children that have ended used; none without /proc."""
    table: dict[int, tuple[int, int]] = {}
    for entry in proc.iterdir() if proc.is_dir() else ():
        if not entry.name.isdigit():
            continue
        try:
            # The command, in parentheses, may hold anything: read behind the last one.
            fields = (entry / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        except OSError:
            continue
        table[int(entry.name)] = int(fields[1]), sum(map(int, fields[11:15]))
    return table
