"""Recounting what an engine holds."""

from __future__ import annotations

from collections.abc import Collection

from offramp.engine.scheduler import Scheduler
from offramp.engine.sequence import Sequence


def check_integrity(scheduler: Scheduler, sequences: Collection[Sequence]) -> None:
    """Recount blocks and frontiers.

    Raises:
        AssertionError: a bug in the engine: leaked blocks, frontiers out of order, or a lease left open.
    """
    running, waiting = scheduler.running, scheduler.waiting
    scheduler.pool.check([s.lease for s in running if s.lease is not None])
    assert all(s.lease is None for s in sequences if s not in running), "a lease was left open"
    _check_sources(scheduler, sequences)
    assert len(running) <= scheduler.config.max_num_seqs and not set(running) & set(waiting)
    for sequence in running:
        order = [sequence.length, *sequence.frontier]
        assert order == sorted(order, reverse=True), f"frontiers of {sequence.number} out of order: {order}"
        assert sequence.accepted <= sequence.length


def _check_sources(scheduler: Scheduler, sequences: Collection[Sequence]) -> None:
    """Whoever runs holds the source of its request, and nobody else does."""
    if scheduler.sources is None:
        return
    known = {id(s.source): s.source for s in sequences if s.source is not None}.values()
    scheduler.sources.check([source.lease for source in known if source.lease is not None])
    for source in known:
        readers = {s.number for s in scheduler.running if s.source is source}
        assert source.holders == readers, f"a source is held by {source.holders}, running are {readers}"
        assert bool(readers) == (source.lease is not None) and (readers or not source.encoded), "a source was left open"
