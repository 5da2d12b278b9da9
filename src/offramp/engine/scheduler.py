"""The scheduler: who is admitted, who is preempted, who advances. It decides; the engine carries out."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from offramp.config import EngineConfig
from offramp.engine.blocks import BlockPool
from offramp.engine.plan import Admission
from offramp.engine.policies import BatchingPolicy, Candidate
from offramp.engine.sequence import Sequence
from offramp.engine.sources import SharedSource, root_of
from offramp.errors import QueueFull

Moves = list[tuple[Sequence, int]]
"""Sequences that advance, and how far."""


class Selection(NamedTuple):
    """What a step does: who is preempted, a reader of each source that is encoded, and who advances in a segment."""

    segment: int
    moves: Moves
    preempted: list[Sequence]
    encode: list[Sequence]


class Scheduler:
    """Queues and decisions. `waiting` and `running` are in order of arrival; the engine moves their members.

    `sources` are the blocks for sources, None for a decoder-only model.
    """

    def __init__(
        self, config: EngineConfig, pool: BlockPool, policy: BatchingPolicy, sources: BlockPool | None = None
    ) -> None:
        self.config = config
        self.pool, self.sources = pool, sources
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
        it preempts nobody at once; and for its source, if nobody who runs holds it. A sibling waits for its parent's
        prompt and then shares it. One that is alone always fits: `Engine.submit` has made sure of that.
        """
        room = self.config.max_num_seqs - len(self.running)
        if not self.waiting or room <= 0:
            return ()
        free = self.pool.num_free - sum(self._next_need(s) for s in self.running)
        free_for_sources = self.sources.num_free if self.sources is not None else 0
        opened: list[SharedSource] = []
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
            source_need = 0
            if self.sources is not None and sequence.source is not None and sequence.source not in opened:
                source_need = sequence.source.blocks_needed(self.sources)
                opened.append(sequence.source)
            if (need > free or source_need > free_for_sources) and not alone:
                break
            free -= need
            free_for_sources -= source_need
            on = sequence.exits_on if sequence.num_output else sequence.exits_on and exits_pay(sequence)
            admitted.append(Admission(sequence.number, on, fork))
        return tuple(admitted)

    def select(self) -> Selection:
        """What to encode, the segment to advance, who advances it how far, and who is preempted first for their blocks.

        The youngest is preempted first. The last one left always fits: `Engine.submit` has made sure of that.
        """
        preempted: list[Sequence] = []
        while True:
            running = [s for s in self.running if s not in preempted] if preempted else self.running
            encode = self._due_sources(running) if self.sources is not None else []
            segment, moves, rows = self._advances(running, encode)
            if segment or len(running) == 1 or self._fits(moves, rows, preempted):
                return Selection(segment, moves, preempted, encode)
            preempted.append(running[-1])

    def _due_sources(self, running: list[Sequence]) -> list[Sequence]:
        """A reader of each source to encode, oldest first: at least one, and no more tokens than a step may run rows.

        Like prompts, sources wait where a `joint` iteration is under way.
        """
        if self.policy.joint and any(not s.replaying and s.frontier[0] == s.length for s in running):
            return []
        room = self.config.max_num_batched_tokens
        due: list[Sequence] = []
        for sequence in running:
            source = sequence.source
            if source is None or source.encoded or source in [s.source for s in due]:
                continue
            room -= len(source.tokens)
            if due and room < 0:
                break
            due.append(sequence)
        return due

    def _fits(self, moves: Moves, rows: int, preempted: list[Sequence]) -> bool:
        """Whether there are blocks for the rows that enter segment 0."""
        free = self.pool.num_free
        if rows + len(moves) <= free:  # a block for each row, and one for each copy: it cannot be more
            return True
        freed = self.pool.freed_by([s.lease for s in preempted if s.lease])
        return sum(self._growth(s, stop) for s, stop in moves) <= free + freed

    def _advances(self, running: list[Sequence], encode: list[Sequence]) -> tuple[int, Moves, int]:
        """The segment, who advances it how far, and the number of rows. Whose source is not encoded waits."""
        most = budget = self.config.max_num_batched_tokens
        candidates = []
        about_to_be = [s.source for s in encode]
        for sequence in running:
            source = sequence.source
            if source is not None and not source.encoded and source not in about_to_be:
                continue
            segment, start, stop = sequence.next_rows(budget)
            candidates.append(Candidate(sequence, segment, stop - start, start))
        segment, chosen = self.policy.select(candidates)
        prompts = [c for c in chosen if c.replaying]
        if prompts:
            chosen = [*(c for c in chosen if not c.replaying), *prompts]
        moves: Moves = []
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
        return self.pool.free_needed(sequence.tokens, prefix_limit(sequence), root_of(sequence.source)) + 1


def prefix_limit(sequence: Sequence) -> int:
    """How many of a waiting sequence's tokens a prefix-cache hit may cover: never its live token, never filled ones.

    Nor that before the live one, where exits read a deep state there that is its own.
    """
    own = 1 if sequence.shape.reads_past and sequence.num_output else 0
    return min(sequence.exact_length, sequence.live - own)


def prompt_written(sequence: Sequence) -> bool:
    """Whether the whole prompt is written in every segment, and told what was asked about it."""
    return sequence.frontier[-1] >= sequence.prompt_length and sequence.prompt_scores.complete
