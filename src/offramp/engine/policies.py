"""Batching policies: which segment a step advances, and for whom.

A policy reads candidates and picks a segment; every candidate that needs that segment comes along. The three of them
differ in one rule each.
"""

from __future__ import annotations

from collections.abc import Sequence as Seq
from typing import NamedTuple, Protocol

from offramp.config import Batching
from offramp.engine.costs import CostModel
from offramp.engine.sequence import Sequence


class Candidate(NamedTuple):
    """A running sequence, the segment it needs next, how many rows it would bring, and where they start."""

    sequence: Sequence
    segment: int
    rows: int
    start: int = 0

    @property
    def replaying(self) -> bool:
        """Whether the rows are prompt or replayed tokens."""
        return self.sequence.replaying


class BatchingPolicy(Protocol):
    """Chooses the segment of a step. `joint` policies exit only where every row of the batch passes."""

    joint: bool

    def select(self, candidates: Seq[Candidate]) -> tuple[int, list[Candidate]]:
        """The segment to advance and the candidates that move, in order of precedence. `candidates` is not empty."""
        ...

    def admitted(self, sequence: Sequence, running: int) -> None:
        """A sequence starts to run."""
        ...

    def stepped(self, segment: int, rows: int, chose: Seq[Sequence], running: int) -> None:
        """A step advanced `rows` rows; `chose` are the sequences that chose a token in it."""
        ...


class Compact:
    """Iterations in which a sequence that exits leaves at once: whoever is on the way up goes on, lowest first."""

    joint = False

    def select(self, candidates: Seq[Candidate]) -> tuple[int, list[Candidate]]:
        climbing = [c.segment for c in candidates if c.segment > 0]
        segment = min(climbing) if climbing else 0
        return segment, [c for c in candidates if c.segment == segment]

    def admitted(self, sequence: Sequence, running: int) -> None:
        pass

    def stepped(self, segment: int, rows: int, chose: Seq[Sequence], running: int) -> None:
        pass


class Lockstep(Compact):
    """The paper's iterations: decodes climb together and leave together; prompts run apart, between iterations."""

    joint = True

    def select(self, candidates: Seq[Candidate]) -> tuple[int, list[Candidate]]:
        climbing = [c for c in candidates if c.segment > 0 and not c.replaying]
        prompts = [c for c in candidates if c.replaying]
        return super().select(climbing or prompts or candidates)


class Depth:
    """No iterations: advance the segment whose batch makes the best use of its cost.

    A batch's worth is what its rows would cost in a batch of all B live sequences (prompt rows: their marginal cost),
    divided by what it costs now. Each sequence has a deadline that moves one full-depth iteration per token, with at
    most `CREDIT` iterations in hand. Whoever has less than one iteration left goes first, the most urgent of all: so,
    by the modelled prices, nobody's k-th choice comes later than at full depth.
    """

    joint = False
    CREDIT = 4.0

    def __init__(self, costs: CostModel) -> None:
        self.costs = costs
        self.clock = 0.0

    def select(self, candidates: Seq[Candidate]) -> tuple[int, list[Candidate]]:
        live = len(candidates)
        at: dict[int, list[Candidate]] = {}
        urgent = candidates[0]
        for candidate in candidates:
            at.setdefault(candidate.segment, []).append(candidate)
            late = candidate.sequence.due - urgent.sequence.due
            if late < 0 or (late == 0 and candidate.sequence.number < urgent.sequence.number):
                urgent = candidate
        if urgent.sequence.due < self.clock + self._iteration(live):
            segment = urgent.segment
            return segment, [urgent, *(c for c in at[segment] if c is not urgent)]
        if len(at) == 1:
            return urgent.segment, at[urgent.segment]
        segment = max(at, key=lambda s: (self._worth(s, at[s], live), s))
        return segment, at[segment]

    def _worth(self, segment: int, batch: list[Candidate], live: int) -> float:
        line = self.costs.segments[segment]
        rows = prompt_rows = decodes = 0
        for candidate in batch:
            rows += candidate.rows
            if candidate.replaying:
                prompt_rows += candidate.rows
            else:
                decodes += 1
        useful = min(decodes, live) * (line.a / live + line.b) + prompt_rows * line.b
        return useful / max(line.price(max(rows, 1)), 1e-12)

    def _iteration(self, rows: int) -> float:
        return self.costs.climb(range(len(self.costs.segments)), rows)

    def admitted(self, sequence: Sequence, running: int) -> None:
        rows = sequence.length - min(sequence.frontier)
        sequence.due = self.clock + self._iteration(rows + running)

    def stepped(self, segment: int, rows: int, chose: Seq[Sequence], running: int) -> None:
        self.clock += self.costs.segments[segment].price(rows)
        if not chose:
            return
        iteration = self._iteration(max(running, 1))
        for sequence in chose:
            sequence.due = min(sequence.due, self.clock + (self.CREDIT - 1) * iteration) + iteration


def make_policy(name: Batching, costs: CostModel) -> BatchingPolicy:
    """The batching policy called `name`."""
    if name == "lockstep":
        return Lockstep()
    return Compact() if name == "compact" else Depth(costs)
