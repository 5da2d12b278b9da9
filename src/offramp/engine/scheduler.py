"""The scheduler: who is admitted, who is preempted, who advances. It decides; the engine carries out."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from offramp.config import EngineConfig
from offramp.engine.blocks import BlockPool, Lease
from offramp.engine.plan import Admission
from offramp.engine.policies import BatchingPolicy, Candidate
from offramp.engine.sequence import Sequence
from offramp.errors import QueueFull


class Scheduler:
    """Queues and decisions. `waiting` and `running` are in order of arrival; the engine moves their members."""

    def __init__(self, config: EngineConfig, pool: BlockPool, policy: BatchingPolicy) -> None:
        self.config = config
        self.pool = pool
        self.policy = policy
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []

    @property
    def load(self) -> int:
        """How many sequences run, once those are admitted for which there is a place."""
        return min(self.config.max_num_seqs, len(self.running) + len(self.waiting))

    def check_room(self, more: int) -> None:
        """Refuse more sequences than may wait, beside those for whom there is a place.

        Raises:
            QueueFull: `max_queue` sequences wait already.
        """
        limit, waiting = self.config.max_queue, len(self.waiting)
        places = self.config.max_num_seqs - len(self.running)
        if limit is not None and waiting + more > places + limit:
            raise QueueFull(
                f"{max(0, waiting - places)} outputs wait already, at most {limit} may", hint="try again later"
            )

    def admissions(self, exits_pay: Callable[[Sequence], bool]) -> tuple[Admission, ...]:
        """Waiting sequences that fit now, first come first served.

        A sequence needs blocks for all its tokens, beside one more block for each running sequence, so that admitting
        it preempts nobody at once. A sibling waits for its parent's prompt and then shares it.
        """
        room = self.config.max_num_seqs - len(self.running)
        if not self.waiting or room <= 0:
            return ()
        free = self.pool.num_free - sum(self._next_need(s) for s in self.running)
        admitted: list[Admission] = []
        for sequence in self.waiting:
            if len(admitted) >= room:
                break
            parent = sequence.parent
            if parent is not None and parent.lease is None and parent.finish_reason is None:
                break
            fork = parent is not None and parent.lease is not None
            if parent is not None and fork and not prompt_written(parent):
                break
            need = 2 if fork else self._admission_need(sequence)
            alone = not self.running and not admitted
            if need > free and not alone:
                break
            free -= need
            on = sequence.exits_on if sequence.num_output else sequence.exits_on and exits_pay(sequence)
            admitted.append(Admission(sequence.number, on, fork))
        return tuple(admitted)

    def select(self) -> tuple[int, list[tuple[Sequence, int]], list[Sequence]]:
        """The segment to advance, who advances it how far, and who must be preempted first for their blocks.

        The youngest is preempted first. The last one left always fits: `Engine.submit` has made sure of that.
        """
        preempted: list[Sequence] = []
        while True:
            running = [s for s in self.running if s not in preempted] if preempted else self.running
            segment, moves, rows = self._advances(running)
            if segment or len(running) == 1 or self._fits(moves, rows, preempted):
                return segment, moves, preempted
            preempted.append(running[-1])

    def _fits(self, moves: list[tuple[Sequence, int]], rows: int, preempted: list[Sequence]) -> bool:
        """Whether there are blocks for the rows that enter segment 0."""
        free = self.pool.num_free
        if rows + len(moves) <= free:  # a block for each row, and one for each copy: it cannot be more
            return True
        freed = self.pool.freed_by([s.lease for s in preempted if s.lease])
        return sum(self._growth(s, stop) for s, stop in moves) <= free + freed

    def _advances(self, running: list[Sequence]) -> tuple[int, list[tuple[Sequence, int]], int]:
        """The segment, who advances it how far, and the number of rows."""
        most = budget = self.config.max_num_batched_tokens
        candidates = []
        for sequence in running:
            segment, start, stop = sequence.next_rows(budget)
            candidates.append(Candidate(sequence, segment, stop - start, start))
        segment, chosen = self.policy.select(candidates)
        prompts = [c for c in chosen if c.replaying]
        if prompts:
            chosen = [*(c for c in chosen if not c.replaying), *prompts]
        moves = []
        for sequence, _, rows, start in chosen:
            if rows > budget:
                rows = budget
                if not rows:
                    continue
            budget -= rows
            moves.append((sequence, start + rows))
        return segment, moves, most - budget

    def _growth(self, sequence: Sequence, stop: int) -> int:
        assert sequence.lease is not None
        return sequence.lease.blocks_needed(stop, sequence.frontier[0])

    def _next_need(self, sequence: Sequence) -> int:
        return self._growth(sequence, sequence.length + 1)

    def _admission_need(self, sequence: Sequence) -> int:
        return self.pool.free_needed(sequence.tokens, prefix_limit(sequence)) + 1


def prefix_limit(sequence: Sequence) -> int:
    """How many of a waiting sequence's tokens a prefix-cache hit may cover: never its live token, never filled ones."""
    return min(sequence.exact_length, sequence.live)


def prompt_written(sequence: Sequence) -> bool:
    """Whether the whole prompt is written in every segment, and told what was asked about it."""
    return sequence.frontier[-1] >= sequence.prompt_length and sequence.prompt_scores.complete


def lease_for(pool: BlockPool, sequence: Sequence) -> Lease:
    """A lease that covers all tokens of a sequence being admitted, starting from cached blocks."""
    lease = Lease(pool)
    hit = lease.adopt_prefix(sequence.tokens, prefix_limit(sequence))
    sequence.skip_to(hit)
    if not sequence.num_output:
        sequence.cached_prompt_tokens = hit
    lease.grow(sequence.length, hit)
    return lease
