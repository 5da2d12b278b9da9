"""Carry out the moves of a plan: encode sources, copy shared blocks, pass exited tokens, run the segments, move the
frontiers."""

from __future__ import annotations

from offramp.engine.fills import Fill, due_fills, pending_fills, split
from offramp.engine.meter import Meter
from offramp.engine.sequence import Sequence
from offramp.engine.sources import written
from offramp.types.executor import SeqRows


def encode(meter: Meter, readers: list[Sequence]) -> int:
    """Encode the source of each of the sequences; nothing counts as written unless all is. Returns how many tokens."""
    sources = [sequence.source for sequence in readers if sequence.source is not None]
    if sources:
        meter.encode([source.rows for source in sources])
    for sequence, source in zip(readers, sources, strict=True):
        source.encoded = True
        sequence.encoded_tokens += len(source.tokens)
    return sum([len(source.tokens) for source in sources])


def advance(meter: Meter, segments: range, moves: list[tuple[Sequence, int]]) -> int:
    """Move each sequence's frontier in `segments` up to its stop. Returns the number of rows that ran in each.

    In each layer, passes write before runs attend: all passes of the step come first. More than one segment is for
    sequences that `climbs_freely`: nothing passes on the way, and every segment runs the same rows.
    """
    copies: list[tuple[int, int]] = []
    fills: list[tuple[Sequence, Fill]] = []
    batch: list[SeqRows] = []
    num_rows = verifying = recomputed = 0
    first = segments.start
    for sequence, stop in moves:
        lease = sequence.lease
        assert lease is not None
        if sequence.fills and (due := due_fills(sequence, first)):
            fills += [(sequence, fill) for fill in due]
            sequence.filled()
        start = sequence.frontier[first]
        if first == 0:
            copies += lease.grow(stop, start)
        if (sequence.verifies or sequence.recomputes) and not sequence.replaying:
            verifying += (stop - start) * sequence.drafts
            recomputed += (stop - start - 1) * sequence.recomputes
        runs, passes = split(sequence, first, range(start, stop))
        if passes:
            fills += [(sequence, fill) for fill in passes]
        if runs:
            num_rows += len(runs)
            tokens = sequence.tokens[runs[0] : runs[-1] + 1] if first == 0 else ()
            batch.append(SeqRows(runs, tokens, lease.blocks, written(sequence.source)))
    if copies:
        meter.executor.copy_blocks(copies)
    if fills:
        _pass(meter, fills)
    for segment in segments:
        if batch:
            meter.run_segment(segment, batch, num_rows, verifying, recomputed)
        for sequence, stop in moves:
            sequence.advance(segment, stop)
    _register(moves, segments)
    return num_rows


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


def _register(moves: list[tuple[Sequence, int]], segments: range) -> None:
    """Full blocks become findable when their tokens have reached the top."""
    for sequence, _ in moves:
        if segments.stop == sequence.top:
            assert sequence.lease is not None
            sequence.lease.register(sequence.tokens, sequence.cacheable_length)
