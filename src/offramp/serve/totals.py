"""Counts that go on over restarts of the engine's process."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from offramp.serve.protocol import EngineStats

COUNTED = (
    "steps",
    "prompt_tokens",
    "cached_prompt_tokens",
    "output_tokens",
    "preemptions",
    "drafts_proposed",
    "drafts_accepted",
    "layers_run",
    "layers_filled",
    "layers_skipped",
)
"""The fields of `EngineStats` that count from the beginning of the process."""

PARTS = ("encoder", "layers", "checks", "fill", "top", "other")
"""What the engine's time is spent on."""


Key = tuple[str, str | int]
"""A field, and which of its counts."""


class EngineTotals:
    """The sums of what all processes of one engine have counted.

    Every process begins at zero. What an earlier one had counted when it was last looked at is added; what it counted
    between that look and its end is lost, so a total may be short but never falls.
    """

    def __init__(self) -> None:
        self.restarts = 0
        self._before: Counter[Key] = Counter()
        self._now: Counter[Key] = Counter()

    def see(self, stats: EngineStats) -> None:
        """Take a look into account."""
        now: Counter[Key] = Counter()
        now.update(dict(_counts(stats)))
        # A process may have died and come back between two looks without our being told: a count that fell says so.
        # Seconds are differences of clocks, and say nothing.
        fell = any(now[key] < count for key, count in self._now.items() if key[0] != "seconds")
        if stats.restarts > self.restarts or fell:
            self._before.update(self._now)
        self._now = now
        self.restarts = max(self.restarts, stats.restarts)

    def __getitem__(self, name: str) -> float:
        """The total of a field in `COUNTED`."""
        return self._total((name, ""))

    def seconds(self) -> dict[str, float]:
        """By what they were spent on."""
        return {part: self._total(("seconds", part)) for part in PARTS}

    def exit_tokens(self) -> dict[int, float]:
        """Output tokens by the layer that proposed them, in order of layers."""
        layers = {int(which) for field, which in [*self._before, *self._now] if field == "exit_tokens"}
        return {layer: self._total(("exit_tokens", layer)) for layer in sorted(layers)}

    def _total(self, key: Key) -> float:
        return self._before[key] + self._now[key]


def _counts(stats: EngineStats) -> Iterator[tuple[Key, float]]:
    """All counts of a look under one name each."""
    for name in COUNTED:
        yield (name, ""), getattr(stats, name)
    for part, seconds in stats.seconds.items():
        yield ("seconds", part), seconds
    for layer, tokens in stats.exit_tokens.items():
        yield ("exit_tokens", layer), tokens
