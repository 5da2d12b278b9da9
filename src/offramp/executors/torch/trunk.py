"""What the torch executor asks of a model's layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from offramp.types.executor import SeqRows, SourceRows


class Trunk(Protocol):
    """The embedding, the layers and what the top's head is made of.

    Batches are ordered by number of rows, which is never 0 (`by_row_count`); rows are in their order.
    """

    @property
    def final_norm(self) -> Tensor:
        """The weights of the norm before the LM head: [hidden_size]."""
        ...

    @property
    def lm_head(self) -> Tensor:
        """[vocab_size, hidden_size]."""
        ...

    def embed(self, tokens: Tensor) -> Tensor:
        """Hidden states [rows, hidden_size] of token ids [rows]."""
        ...

    def run(self, layers: range, batch: Sequence[SeqRows], slots: Tensor, hidden: Tensor) -> Tensor:
        """Run hidden states [rows, hidden_size] through `layers`; each writes K and V at `slots` first."""
        ...

    def project(self, layers: slice, batch: Sequence[SeqRows], hidden: Tensor) -> tuple[Tensor, Tensor]:
        """K and V of passing hidden states [rows, hidden_size]: [layers, rows, kv_heads, head_dim] each."""
        ...

    def encode(self, batch: Sequence[SourceRows]) -> None:
        """Encode sources; see `Executor.encode`. Only where there is an encoder."""
        ...


def positions_of(batch: Sequence[SeqRows]) -> list[int]:
    """The positions of all rows."""
    return [p for seq in batch for p in seq.positions]
