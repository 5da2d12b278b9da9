"""What `offramp bench servers` is to measure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from offramp.bench.results import Task
from offramp.errors import InvalidParameter
from offramp.types.checks import check_integer


class Metric(NamedTuple):
    """A figure of a run: its name in `figures`, its unit, whether less is better, and what tables call it."""

    key: str
    unit: str
    less: bool
    title: str


METRICS: Mapping[str, Metric] = {
    "throughput": Metric("output_throughput", "tokens/s", False, "output tokens/s of all users together"),
    "ttft": Metric("mean_ttft_ms", "ms", True, "time to first token, ms, mean over requests"),
    "tpot": Metric("mean_tpot_ms", "ms", True, "time per token after the first, ms, mean over requests"),
    "itl_p99": Metric("p99_itl_ms", "ms", True, "99th percentile of the time between chunks, ms"),
}

FEWEST = 4
"""Requests in a run, however few users there are."""


@dataclass(frozen=True, slots=True)
class ServersSettings:
    """The load and how often it is put on every server.

    Args:
        users: how many at once; each waits for an answer before asking again.
        requests: of each user in a run.
        repeats: rounds that count; each has every server once.
        new_tokens: of each answer.
        dataset: `mtbench` or another name of `offramp.bench.load.samples`, but not `random`; or the path of a file of
            prompts.
        max_prompt: longer prompts are left out.
        max_wait: seconds to wait for a quiet machine before a run is tried all the same.
    """

    users: tuple[int, ...] = (1, 8, 32)
    requests: int = 2
    repeats: int = 5
    new_tokens: int = 64
    dataset: str = "mtbench"
    max_prompt: int = 256
    max_wait: float = 60.0

    def __post_init__(self) -> None:
        for users in self.users:
            check_integer("batch", users, 1)
        if not self.users or len(set(self.users)) < len(self.users):
            raise InvalidParameter("`--batch` must name numbers of users, each once", param="batch")
        check_integer("requests", self.requests, 1)
        check_integer("repeats", self.repeats, 1)
        check_integer("new_tokens", self.new_tokens, 2)
        check_integer("max_prompt", self.max_prompt, 1)

    @property
    def context(self) -> int:
        """Room that a request needs with its answer."""
        return self.max_prompt + self.new_tokens + 16

    def count(self, users: int) -> int:
        """Requests in a run."""
        return max(self.requests * users, FEWEST)

    def identity(self, model: str, threads: int) -> dict[str, Any]:
        """What must be equal for cells of two runs to stand in one table."""
        return {"model": model, "threads": threads, **asdict(self), "users": list(self.users)}


QUICK: Mapping[str, Any] = {"users": (1, 8), "repeats": 3, "new_tokens": 32}
"""What `--quick` changes."""


def tasks(users: int) -> list[Task]:
    """What a run gives: a value for each metric."""
    return [Task(metric, users) for metric in METRICS]
