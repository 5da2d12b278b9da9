"""The deep state of the token before the live one, across a preemption.

A head that reads the past finds it at that token's slot. A preemption gives the slot up, and what is replayed decides
nothing anew, so nothing would write the state again.
"""

from __future__ import annotations

from collections.abc import Iterable

from offramp.engine.sequence import Sequence
from offramp.types.executor import Executor


def kept_past(executor: Executor, sequence: Sequence) -> object:
    """What must be kept of a sequence that is about to be preempted; unverified drafts will be forgotten."""
    if not executor.shape.reads_past or sequence.accepted <= sequence.prompt_length:
        return None
    if sequence.past is not None:
        return sequence.past
    assert sequence.lease is not None
    return executor.read_state(sequence.accepted - 2, sequence.lease.blocks)


def put_back(executor: Executor, sequences: Iterable[Sequence]) -> None:
    """Write what was kept to the slots of sequences that have replayed and whose live token is to be tested."""
    for sequence in sequences:
        if sequence.past is not None:
            assert sequence.lease is not None
            executor.write_state(sequence.live - 1, sequence.lease.blocks, sequence.past)
            sequence.past = None
