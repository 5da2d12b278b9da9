"""Recounting what an engine holds."""

from __future__ import annotations

from collections.abc import Iterable

from offramp.engine.scheduler import Scheduler
from offramp.engine.sequence import Sequence


def check_integrity(scheduler: Scheduler, sequences: Iterable[Sequence]) -> None:
    """Recount blocks and frontiers.

    Raises:
        AssertionError: a bug in the engine: leaked blocks, frontiers out of order, or a lease left open.
    """
    running, waiting = scheduler.running, scheduler.waiting
    scheduler.pool.check([s.lease for s in running if s.lease is not None])
    assert all(s.lease is None for s in sequences if s not in running), "a lease was left open"
    assert len(running) <= scheduler.config.max_num_seqs and not set(running) & set(waiting)
    for sequence in running:
        order = [sequence.length, *sequence.frontier]
        assert order == sorted(order, reverse=True), f"frontiers of {sequence.number} out of order: {order}"
        assert sequence.accepted <= sequence.length
