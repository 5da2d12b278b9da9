"""What the HTTP side reports about its requests, to whoever counts them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from offramp.serve.protocol import EngineClient, EngineStats
from offramp.types.output import ExitReport


@dataclass(frozen=True, slots=True)
class Ended:
    """What a request came to.

    Args:
        outcome: one of few words, each of which becomes a series: `stop` or `length`; `cancelled` by the client;
            `refused`, `queue_full`, `engine_down` or `error`.
        ttft: seconds to the first token; None if there was none.
        itl: seconds between tokens of an output.
        seconds: from arrival to end.
        report: over all outputs that ended; None if none did.
    """

    outcome: str
    prompt_tokens: int
    output_tokens: int
    ttft: float | None
    itl: Sequence[float]
    seconds: float
    report: ExitReport | None


class Metrics(Protocol):
    """Counts requests. `offramp.serve.metrics` has the one that Prometheus reads."""

    in_flight: int
    """Requests that were taken and have not ended."""

    def started(self) -> None:
        """A request has come in. Each is reported as `finished`, however it ends."""

    def finished(self, ended: Ended) -> None:
        """A request has ended."""

    def observe(self, stats: EngineStats) -> None:
        """A look at the engine that was made for another reason."""

    async def render(self, client: EngineClient) -> bytes:
        """The page `/metrics`, in Prometheus' text format."""


class NoMetrics:
    """Counts nothing but the requests in flight."""

    def __init__(self) -> None:
        self.in_flight = 0

    def started(self) -> None:
        """One more."""
        self.in_flight += 1

    def finished(self, ended: Ended) -> None:
        """One fewer."""
        self.in_flight -= 1

    def observe(self, stats: EngineStats) -> None:
        """Nothing."""

    async def render(self, client: EngineClient) -> bytes:
        """An empty page."""
        return b""
