"""Admission: a waiting sequence gets its blocks and runs."""

from __future__ import annotations

from collections.abc import Sequence as Seq

from offramp.engine.blocks import Lease
from offramp.engine.plan import Admission
from offramp.engine.scheduler import Scheduler, prefix_limit
from offramp.engine.sequence import Sequence
from offramp.engine.sources import root_of


def admit(scheduler: Scheduler, admissions: Seq[Admission]) -> None:
    """Carry out what was decided: those at the head of the queue run."""
    for number, exits_on, fork in admissions:
        sequence = scheduler.waiting.popleft()
        assert sequence.number == number, f"plan admits {number}, the queue has {sequence.number}"
        sequence.switched_off |= sequence.exits_on and not exits_on
        sequence.exits_on = exits_on
        if sequence.source is not None and scheduler.sources is not None:
            sequence.source.hold(number, scheduler.sources)
        if fork:
            assert sequence.parent is not None and sequence.parent.lease is not None
            sequence.lease = sequence.parent.lease.fork(sequence.prompt_length)
            sequence.share_prompt()
        else:
            _open_lease(scheduler, sequence)
        sequence.parent = None
        scheduler.running.append(sequence)
        scheduler.policy.admitted(sequence, len(scheduler.running))


def _open_lease(scheduler: Scheduler, sequence: Sequence) -> None:
    """A lease that covers all tokens, starting from cached blocks."""
    sequence.lease = lease = Lease(scheduler.pool, root_of(sequence.source))
    hit = lease.adopt_prefix(sequence.tokens, prefix_limit(sequence))
    sequence.skip_to(hit)
    if not sequence.num_output:
        sequence.cached_prompt_tokens = hit
    lease.grow(sequence.length, hit)
