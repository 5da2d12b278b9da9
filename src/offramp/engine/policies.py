"""Batching policies: which segment a step advances, and for whom.

A policy reads candidates and picks a segment; every candidate that needs that segment comes along. The three of them
differ in one rule each.
"""

from __future__ import annotations

import math
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

    def encoded(self, tokens: int) -> None:
        """A step encoded sources of so many tokens."""
        ...

    def stepped(self, segment: int, rows: int, moved: Seq[Sequence], chose: Seq[Sequence], running: int) -> None:
        """A step advanced `rows` rows of the sequences `moved`; `chose` are those that chose a token in it."""
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

    def encoded(self, tokens: int) -> None:
        pass

    def stepped(self, segment: int, rows: int, moved: Seq[Sequence], chose: Seq[Sequence], running: int) -> None:
        pass


class Lockstep(Compact):
    """The paper's iterations: decodes climb together and leave together; prompts run apart, between iterations."""

    joint = True

    def select(self, candidates: Seq[Candidate]) -> tuple[int, list[Candidate]]:
        climbing = [c for c in candidates if c.segment > 0 and not c.replaying]
        prompts = [c for c in candidates if c.replaying]
        return super().select(climbing or prompts or candidates)


class Depth:
    """No iterations: whoever waits at a boundary goes on where that makes the most of the calls, in time for all.

    Two groups that wait at different boundaries can become one batch in two ways: the lower one climbs to the upper
    one, or the upper one goes first and comes back as new tokens. What gathers saves a part of the calls from there
    on; the order that saves more is taken. How many sequences stay at each exit is watched.

    Each sequence has a deadline that moves one full-depth iteration per token, with at most `CREDIT` iterations in
    hand. Whoever has less than one iteration left goes first, the most urgent of all: so, by the modelled prices,
    nobody's k-th choice comes later than the promise says. A first token is due when the prompts admitted until then
    would have run, sources encoded, first come first served; prompts admitted later delay every later token.
    """

    joint = False
    CREDIT = 4.0
    FADE = 0.99

    def __init__(self, costs: CostModel) -> None:
        self.costs = costs
        self.clock = 0.0
        self.top = len(costs.segments)
        self._prompts_end = 0.0  # when the prompts admitted so far would be through
        self._prompts_took = 0.0  # what all of them cost; deadlines of sequences with output count from there
        self._came, self._stayed = [1.0] * (self.top - 1), [1.0] * (self.top - 1)  # by exit

    def select(self, candidates: Seq[Candidate]) -> tuple[int, list[Candidate]]:
        at: dict[int, list[Candidate]] = {}
        urgent, soonest = candidates[0], math.inf
        for candidate in candidates:
            at.setdefault(candidate.segment, []).append(candidate)
            due = self._due(candidate.sequence)
            if due < soonest or (due == soonest and candidate.sequence.number < urgent.sequence.number):
                urgent, soonest = candidate, due
        if len(at) == 1 or soonest < self.clock + self._iteration_with_tests(len(candidates)):
            segment = urgent.segment
            return segment, [urgent, *(c for c in at[segment] if c is not urgent)]
        segment = self._most_gathered({segment: len(batch) for segment, batch in at.items()})
        return segment, at[segment]

    def _due(self, sequence: Sequence) -> float:
        return sequence.due + self._prompts_took if sequence.marks else sequence.due

    def _most_gathered(self, waiting: dict[int, int]) -> int:
        """The segment to advance, given how many sequences wait for each."""
        # A bit more than was seen: where it is wrong, gathering too long costs less than too short.
        stay = [0.05 + 0.95 * stayed / came for came, stayed in zip(self._came, self._stayed, strict=True)]
        stay.append(0.0)
        starts = [line.a for line in self.costs.segments]
        starts[-1] += self.costs.checks[-1].a
        upper, *others = sorted(waiting, reverse=True)
        for lower in others:
            arrive, below = _climb(starts, stay, lower, upper)
            above = _climb(starts, stay, upper, self.top)[1]
            arrive *= waiting[lower]
            come_back = _climb(starts, stay, 0, lower)[0] * waiting[upper]
            lower_first = above * arrive / (waiting[upper] + arrive)
            upper_first = below * come_back / (waiting[lower] + come_back)
            if lower_first > upper_first:
                upper = lower
        return upper

    def _iteration(self, rows: int) -> float:
        return self.costs.full_depth(rows)

    def _iteration_with_tests(self, rows: int) -> float:
        total = self._iteration(rows)
        for line in self.costs.checks[:-1]:
            total += line.price(rows)
        return total

    def admitted(self, sequence: Sequence, running: int) -> None:
        rows = sequence.length - min(sequence.frontier) - 1  # the last one is part of the iteration
        seconds = max(rows, 0) * sum(line.b for line in self.costs.segments)
        if sequence.source is not None and not sequence.source.encoded:
            seconds += self.costs.encoder.price(len(sequence.source.tokens))
        self._prompts_took += seconds
        self._prompts_end = max(self._prompts_end, self.clock) + seconds
        sequence.due = self._prompts_end + self._iteration(running)
        if sequence.marks:
            sequence.due -= self._prompts_took

    def encoded(self, tokens: int) -> None:
        self.clock += self.costs.encoder.price(tokens)

    def stepped(self, segment: int, rows: int, moved: Seq[Sequence], chose: Seq[Sequence], running: int) -> None:
        exit = segment + 1
        tested = len(chose)
        if exit < self.top:
            tested += sum([s.failed == exit for s in moved])
            self._came[segment] = self.FADE * self._came[segment] + len(moved)
            self._stayed[segment] = self.FADE * self._stayed[segment] + len(moved) - len(chose)
        self.clock += self.costs.segments[segment].price(rows) + self.costs.checks[segment].price(tested)
        if not chose:
            return
        iteration = self._iteration(max(running, 1))
        latest = max(self.clock, self._prompts_end) - self._prompts_took + (self.CREDIT - 1) * iteration
        for sequence in chose:
            if len(sequence.marks) == 1:
                sequence.due = max(sequence.due, self._prompts_end + iteration) - self._prompts_took
            sequence.due = min(sequence.due, latest) + iteration


def _climb(starts: Seq[float], stay: Seq[float], first: int, stop: int) -> tuple[float, float]:
    """The share of a group that climbs from boundary `first` to `stop`, and what starting the calls costs for it."""
    share, cost = 1.0, 0.0
    for segment in range(first, stop):
        cost += share * starts[segment]
        share *= stay[segment]
    return share, cost


def make_policy(name: Batching, costs: CostModel) -> BatchingPolicy:
    """The batching policy called `name`."""
    if name == "lockstep":
        return Lockstep()
    return Compact() if name == "compact" else Depth(costs)
