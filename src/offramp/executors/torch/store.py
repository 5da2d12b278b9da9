"""The paged store: everything that is kept about a token lies at the token's slot."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from offramp.errors import InvalidParameter
from offramp.models import Spec


class PagedStore:
    """K and V of every layer, and the hidden states at boundaries 1..S+1, by slot.

    Attributes:
        keys, values: [layers, slots, kv_heads, head_dim].
        hidden: [S + 1, slots, hidden_size]; boundary b is at index b - 1. Deep states, if any, lie behind them. A store
            of sources has none.

    Raises:
        InvalidParameter: memory cannot hold it.
    """

    def __init__(
        self,
        spec: Spec,
        num_boundaries: int,
        *,
        block_size: int,
        num_blocks: int,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self.block_size, self.device, self.dtype = block_size, device, dtype
        slots = num_blocks * block_size
        kv = (spec.num_layers, slots, spec.num_kv_heads, spec.head_dim)
        try:
            self.keys = torch.zeros(kv, device=device, dtype=dtype)
            self.values = torch.zeros(kv, device=device, dtype=dtype)
            self.hidden = torch.zeros((num_boundaries, slots, spec.hidden_size), device=device, dtype=dtype)
        except (RuntimeError, MemoryError) as error:
            raise InvalidParameter(
                f"a paged store of {slots} tokens cannot be had on `{device}`: {str(error).splitlines()[0]}",
                param="kv_tokens",
                hint="lower `kv_tokens`, or `source_tokens` where there is an encoder",
            ) from error

    def slot(self, position: int, blocks: Sequence[int]) -> int:
        """The slot of one position of a sequence with this block table."""
        return blocks[position // self.block_size] * self.block_size + position % self.block_size

    def slots(self, positions: Tensor, blocks: Tensor) -> Tensor:
        """Slots of `positions` [..., n] in block tables [..., any]: [..., n]."""
        return blocks.gather(-1, positions // self.block_size) * self.block_size + positions % self.block_size

    def read_boundary(self, boundary: int, slots: Tensor) -> Tensor:
        """Hidden states at a boundary (1..S+1): [rows, hidden_size]."""
        return self.hidden[boundary - 1].index_select(0, slots)

    def write_boundary(self, boundary: int, slots: Tensor, hidden: Tensor) -> None:
        self.hidden[boundary - 1].index_copy_(0, slots, hidden)

    def write_kv(self, layers: slice, slots: Tensor, keys: Tensor, values: Tensor) -> None:
        """Write K and V [layers, rows, kv_heads, head_dim] at the rows' slots."""
        self.keys[layers].index_copy_(1, slots, keys)
        self.values[layers].index_copy_(1, slots, values)

    def copy_blocks(self, pairs: Sequence[tuple[int, int]]) -> None:
        """Copy whole blocks, (source, target); all sources are read before a target is written."""
        if not pairs:
            return
        sources, targets = torch.tensor(pairs, device=self.hidden.device).unbind(1)
        for tensor in (self.keys, self.values, self.hidden):
            by_block = tensor.view(len(tensor), -1, self.block_size, *tensor.shape[2:])
            by_block.index_copy_(1, targets, by_block.index_select(1, sources))
