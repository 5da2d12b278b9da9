"""Carry out the moves of a plan: copy shared blocks, pass exited tokens, run the segment, move the frontiers."""

from __future__ import annotations

from offramp.engine.fills import Fill, due_fills, pending_fills, split
from offramp.engine.meter import Meter
from offramp.engine.sequence import Sequence
from offramp.types.executor import SeqRows


def advance(meter: Meter, segment: int, moves: list[tuple[Sequence, int]]) -> int:
    """Move each sequence's frontier in `segment` up to its stop. Returns the number of rows that ran.

    In each layer, passes write before runs attend: all passes of the step come first.
    """
    copies: list[tuple[int, int]] = []
    fills: list[tuple[Sequence, Fill]] = []
    batch: list[SeqRows] = []
    verifying = recomputed = 0
    for sequence, stop in moves:
        assert sequence.lease is not None
        due = due_fills(sequence, segment)
        if due:
            sequence.filled()
        start = sequence.frontier[segment]
        if segment == 0:
            copies += sequence.lease.grow(stop, start)
        if not sequence.replaying:
            verifying += (stop - start) * sequence.drafts
            recomputed += (stop - start - 1) * sequence.recomputes
        runs, passes = split(sequence, segment, range(start, stop))
        fills += [(sequence, fill) for fill in (*due, *passes)]
        if runs:
            tokens = sequence.tokens[runs[0] : runs[-1] + 1] if segment == 0 else ()
            batch.append(SeqRows(runs, tokens, sequence.lease.blocks))
    if copies:
        meter.executor.copy_blocks(copies)
    _pass(meter, fills)
    if batch:
        meter.run_segment(segment, batch, verifying, recomputed)
    for sequence, stop in moves:
        sequence.advance(segment, stop)
        assert sequence.lease is not None
        sequence.lease.register(sequence.tokens, sequence.cacheable_length)
    return sum(len(rows.positions) for rows in batch)


def fill_now(meter: Meter, sequences: list[Sequence]) -> None:
    """Pass all exited tokens of some sequences: what ends an iteration of the paper."""
    _pass(meter, [(sequence, fill) for sequence in sequences for fill in pending_fills(sequence)])
    for sequence in sequences:
        sequence.filled()


def _pass(meter: Meter, fills: list[tuple[Sequence, Fill]]) -> None:
    groups: dict[tuple[int, range], list[SeqRows]] = {}
    for sequence, fill in fills:
        assert sequence.lease is not None
        rows = SeqRows(fill.positions, (), sequence.lease.blocks)
        groups.setdefault((fill.boundary, fill.segments), []).append(rows)
    for (boundary, segments), batch in groups.items():
        meter.pass_tokens(boundary, segments, batch)
