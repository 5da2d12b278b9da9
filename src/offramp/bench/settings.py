"""What `offramp bench engine` is to measure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from offramp.bench.results import Task
from offramp.errors import InvalidParameter
from offramp.types.checks import check_integer

SLACK_TOKENS = 128
"""Room behind a prompt and its output: sequences whose prompts were read first are ahead of the others."""


@dataclass(frozen=True, slots=True)
class Settings:
    """The work and how often it is done.

    Args:
        batches: sequences decoded at once.
        repeats: rounds of every task that count; each round has every engine once.
        prompt_tokens, new_tokens: of a decode: context before it, and tokens timed for each sequence.
        prefill_tokens: length of the prompt whose first token is timed; 0 leaves it out.
        step_rows: rows of one sequence in a timed step (what verification pays); () leaves it out.
        max_wait: seconds to wait for a quiet machine before a repeat is tried all the same.
    """

    batches: tuple[int, ...] = (1, 4, 8, 16, 32)
    repeats: int = 5
    prompt_tokens: int = 64
    new_tokens: int = 64
    prefill_tokens: int = 512
    step_rows: tuple[int, ...] = (1, 2, 4, 8)
    max_wait: float = 60.0

    def __post_init__(self) -> None:
        if not self.batches:
            raise InvalidParameter("`--batch` names no batch size", param="batch")
        for batch in self.batches:
            check_integer("batch", batch, 1)
        if len(set(self.batches)) < len(self.batches):
            raise InvalidParameter("`--batch` names a batch size twice", param="batch")
        for rows in self.step_rows:
            check_integer("step_rows", rows, 1)
        check_integer("repeats", self.repeats, 1)
        check_integer("prompt_tokens", self.prompt_tokens, 1)
        check_integer("new_tokens", self.new_tokens, 1)
        check_integer("prefill", self.prefill_tokens, 0)

    @property
    def tasks(self) -> list[Task]:
        """In the order in which they are measured."""
        decodes = [Task("decode", batch) for batch in self.batches]
        prefill = [Task("prefill", self.prefill_tokens)] if self.prefill_tokens else []
        return [*decodes, *prefill, *(Task("step", rows) for rows in self.step_rows)]

    @property
    def context(self) -> int:
        """Room that a sequence needs."""
        return max(self.prefill_tokens, self.prompt_tokens + 2 * self.new_tokens) + SLACK_TOKENS

    def identity(self, model: str, threads: int) -> dict[str, Any]:
        """What must be equal for cells of two runs to stand in one table."""
        own = asdict(self)
        for name in ("batches", "step_rows"):
            own[name] = list(own[name])
        return {"model": model, "threads": threads, **own}


QUICK: Mapping[str, Any] = {"batches": (1, 8, 16), "repeats": 3, "new_tokens": 32}
"""What `--quick` changes."""
