"""Plans: what a step will do, as frozen values that print as the code that makes them.

A list of plans is a bug report: `Engine.carry_out` repeats them on a fresh engine that was given the same requests.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from offramp.engine.request import TokenEvent
from offramp.types.output import FinishReason


class Admission(NamedTuple):
    """A waiting sequence that starts to run, with exits on or off; `fork` shares its parent's prompt blocks."""

    sequence: int
    exits_on: bool
    fork: bool = False


class Advance(NamedTuple):
    """A sequence whose frontier in the plan's segment moves up to `stop`."""

    sequence: int
    stop: int


@dataclass(frozen=True, slots=True)
class Plan:
    """One step: admit, preempt, encode, then advance one segment and decide at the boundary above it.

    `encode` lists a sequence for each source that is encoded; whoever reads one of them may advance in the same step.
    With `to_top` the same rows go on through every segment above: nobody is tested on the way.
    `abort` lists the sequences the caller aborted since the step before.
    `verify_off` lists the running `verify` sequences that draft no more from now on.
    """

    number: int
    segment: int
    advance: tuple[Advance, ...] = ()
    abort: tuple[int, ...] = ()
    admit: tuple[Admission, ...] = ()
    preempt: tuple[int, ...] = ()
    verify_off: tuple[int, ...] = ()
    to_top: bool = False
    encode: tuple[int, ...] = ()

    @property
    def moved(self) -> tuple[int, ...]:
        """The sequences that advance."""
        return tuple([number for number, _ in self.advance])


class Finished(NamedTuple):
    """A sequence that ended in a step, and why."""

    sequence: int
    reason: FinishReason


@dataclass(frozen=True, slots=True)
class StepResult:
    """What a step did: its plan, the tokens that became output, the sequences that ended."""

    plan: Plan
    events: tuple[TokenEvent, ...] = ()
    finished: tuple[Finished, ...] = ()
