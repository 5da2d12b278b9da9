"""Which tokens pass: hidden-state propagation (CALM, Schuster et al. 2022) in terms of frontiers."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Sequence as Seq
from typing import NamedTuple

from offramp.engine.sequence import Sequence


class Fill(NamedTuple):
    """Tokens that pass: K and V of all layers of `segments`, projected from their hidden states at `boundary`."""

    boundary: int
    segments: range
    positions: tuple[int, ...]


def due_fills(sequence: Sequence, segment: int) -> list[Fill]:
    """Fills that must happen before the live token enters `segment`: to the top, one per boundary group.

    None is due while the segment itself lacks nothing, as where all that left early left further up.
    """
    if not sequence.fills or sequence.replaying:
        return []
    assert sequence.exit is not None
    if sequence.exit.fill_when == "lazy" and sequence.frontier[segment] >= sequence.live:
        return []
    return pending_fills(sequence)


def pending_fills(sequence: Sequence) -> list[Fill]:
    """Fills of everything that has exited and not passed yet."""
    if sequence.frontier[-1] >= sequence.live:
        return []
    groups = _by_mark(sequence, range(sequence.frontier[-1], sequence.live))
    return [Fill(boundary, range(boundary, sequence.top), positions) for boundary, positions in groups]


def split(sequence: Sequence, segment: int, rows: range) -> tuple[Seq[int], list[Fill]]:
    """Of rows about to advance a segment: those that run, and those that pass (replayed tokens that exited below)."""
    if not sequence.fills or sequence.first_exit is None or rows.stop <= sequence.first_exit or not sequence.replaying:
        return rows, []
    exited = {position for position in rows if sequence.mark(position) <= segment}
    groups = _by_mark(sequence, sorted(exited))
    here = range(segment, segment + 1)
    return tuple(p for p in rows if p not in exited), [Fill(b, here, positions) for b, positions in groups]


def _by_mark(sequence: Sequence, positions: Iterable[int]) -> list[tuple[int, tuple[int, ...]]]:
    groups: dict[int, list[int]] = {}
    for position in positions:
        groups.setdefault(sequence.mark(position), []).append(position)
    return [(boundary, tuple(group)) for boundary, group in sorted(groups.items())]
