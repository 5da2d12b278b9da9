"""Causal attention of ragged rows over the paged store.

Sequences with the same number of rows form a bucket, whose K and V are gathered up to its longest context and attended
to in one call. All index tensors and masks are built once and serve every layer of a segment.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from offramp.executors.torch.store import PagedStore
from offramp.types.executor import SeqRows


class Bucket(NamedTuple):
    """B sequences of n rows each, with a longest context of C positions."""

    positions: Tensor  # int64 [B, n]
    context: Tensor  # int64 [B * C], slots; past a sequence's own context, its last slot over again
    distance: Tensor  # int64 [B, n, C]: row position - context position


class Attention:
    """Attention of one batch, whose rows are ordered by bucket.

    Args:
        batch: the sequences, ordered by number of rows (`by_row_count`).
        store: what the block tables refer to.
        group: query heads per key/value head (grouped-query attention, Ainslie et al. 2023).
    """

    def __init__(self, batch: Sequence[SeqRows], store: PagedStore, group: int) -> None:
        self.group = group
        self.buckets = [_bucket(list(same), store) for _, same in groupby(batch, key=_row_count)]
        self._masks: dict[int | None, list[Tensor]] = {}

    def attend(self, queries: Tensor, keys: Tensor, values: Tensor, window: int | None) -> Tensor:
        """Attend over what is stored.

        Args:
            queries: [rows, heads, head_dim], rows in the order of the batch.
            keys, values: [slots, kv_heads, head_dim], one layer of the store.
            window: how many positions a row sees, itself included; None is all of them.

        Returns:
            [rows, heads, head_dim].
        """
        if window not in self._masks:
            self._masks[window] = [self._mask(bucket, window) for bucket in self.buckets]
        outputs, start = [], 0
        for bucket, mask in zip(self.buckets, self._masks[window], strict=True):
            rows = bucket.positions.numel()
            outputs.append(self._attend(queries[start : start + rows], keys, values, bucket, mask))
            start += rows
        return torch.cat(outputs) if len(outputs) > 1 else outputs[0]

    def _mask(self, bucket: Bucket, window: int | None) -> Tensor:
        """What may be attended to: bool [B, 1, group * n, C]."""
        seen = bucket.distance >= 0
        if window is not None:
            seen &= bucket.distance < window
        return seen.repeat(1, self.group, 1)[:, None]

    def _attend(self, queries: Tensor, keys: Tensor, values: Tensor, bucket: Bucket, mask: Tensor) -> Tensor:
        """Query heads that share a key head become rows of it, so no key is repeated."""
        sequences, rows = bucket.positions.shape
        kv_heads, head_dim = keys.shape[1:]
        q = queries.view(sequences, rows, kv_heads, self.group, head_dim).permute(0, 2, 3, 1, 4)
        k, v = (
            stored.index_select(0, bucket.context).view(sequences, -1, kv_heads, head_dim).transpose(1, 2)
            for stored in (keys, values)
        )
        out = F.scaled_dot_product_attention(q.flatten(2, 3), k, v, attn_mask=mask)
        return out.view(sequences, kv_heads, self.group, rows, head_dim).permute(0, 3, 1, 2, 4).reshape(queries.shape)


def by_row_count(batch: Sequence[SeqRows]) -> list[SeqRows]:
    """The sequences that have rows, ordered by how many."""
    return sorted((seq for seq in batch if seq.positions), key=_row_count)


def _row_count(seq: SeqRows) -> int:
    return len(seq.positions)


def _bucket(batch: Sequence[SeqRows], store: PagedStore) -> Bucket:
    """Built on the CPU and moved once. Padding repeats the sequence's own last slot, so that a row which is not finite
    harms no other sequence: a masked weight of 0 times NaN is NaN."""
    longest = max(seq.positions[-1] for seq in batch) + 1
    width = max(len(seq.blocks) for seq in batch)
    positions = torch.tensor([list(seq.positions) for seq in batch])
    tables = torch.tensor([[*seq.blocks, *[0] * (width - len(seq.blocks))] for seq in batch])
    places = torch.arange(longest)
    context = store.slots(torch.minimum(places, positions[:, -1:]), tables)
    distance = positions[:, :, None] - places
    device = store.hidden.device
    return Bucket(positions, context.flatten().to(device), distance.to(device))
