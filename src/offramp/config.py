"""Configuration of the engine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from offramp.errors import InvalidParameter
from offramp.types.checks import check_integer, check_one_of

Batching = Literal["lockstep", "compact", "depth"]


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """How the engine batches. Validated on construction.

    Args:
        batching: who moves on at a boundary: `lockstep` (the paper, Miao et al. 2024), `compact` or `depth`.
        max_num_seqs: sequences running at once.
        max_num_batched_tokens: token rows a step may run; longer prompts are cut into chunks. At least
            `max_num_seqs`, so that every running sequence can move. Passing (filling) is not counted. A step may
            encode as many source tokens beside them, or one source that is longer.
        max_queue: requests that may wait; None for no limit.
        prefix_caching: keep exact blocks findable after their sequence ends.
        profitability: switch exits off while they cost more than they save, and measure step costs as the engine runs.
    """

    batching: Batching = "depth"
    max_num_seqs: int = 32
    max_num_batched_tokens: int = 512
    max_queue: int | None = None
    prefix_caching: bool = True
    profitability: bool = True

    def __post_init__(self) -> None:
        check_one_of("batching", self.batching, get_args(Batching))
        check_integer("max_num_seqs", self.max_num_seqs, 1)
        check_integer("max_num_batched_tokens", self.max_num_batched_tokens, 1)
        if self.max_num_batched_tokens < self.max_num_seqs:
            raise InvalidParameter(
                f"`max_num_batched_tokens` is {self.max_num_batched_tokens}, "
                f"less than `max_num_seqs` {self.max_num_seqs}",
                param="max_num_batched_tokens",
                hint="every running sequence needs one row of a step",
            )
        if self.max_queue is not None:
            check_integer("max_queue", self.max_queue, 1)
