"""What is asked about a prompt's own tokens, and what is known of them so far."""

from __future__ import annotations

from dataclasses import dataclass, field

from offramp.types.output import LogProbs


@dataclass
class PromptScores:
    """How likely the tokens of a prompt of `length` are at full depth.

    Beside each token's own log-probability the `most` likeliest tokens are listed; None asks nothing. `told` has an
    entry for each prompt token; that of the first is empty.
    """

    length: int
    most: int | None
    told: list[LogProbs] = field(default_factory=lambda: [()])

    @property
    def complete(self) -> bool:
        """Whether all is told that was asked."""
        return self.most is None or len(self.told) == self.length

    def due(self, reached: int, room: int) -> range:
        """The positions to score next, at most `room`, where `reached` tokens have reached the top."""
        start = len(self.told) - 1
        return range(start, min(reached, self.length - 1, start + room))
