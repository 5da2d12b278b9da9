"""Attention of ragged rows over a paged store.

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
    """B sequences of n rows each, which attend to C places each, those that a mask leaves."""

    sequences: int
    rows: int
    context: Tensor  # int64 [B * C], slots


class Causal(NamedTuple):
    """A bucket of rows that attend to their own sequences, up to a longest context of C positions."""

    bucket: Bucket  # past a sequence's own context, its last slot over again
    distance: Tensor  # int64 [B, n, C]: row position - context position


class Attention:
    """Causal attention of one batch, whose rows are ordered by bucket.

    Args:
        batch: the sequences, ordered by number of rows (`by_row_count`).
        store: what the block tables refer to.
        group: query heads per key/value head (grouped-query attention, Ainslie et al. 2023).
    """

    def __init__(self, batch: Sequence[SeqRows], store: PagedStore, group: int) -> None:
        self.group = group
        self.buckets = causal_buckets(batch, store)
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
            self._masks[window] = [self._mask(distance, window) for _, distance in self.buckets]
        return attend_buckets([b for b, _ in self.buckets], self._masks[window], queries, keys, values)

    def _mask(self, distance: Tensor, window: int | None) -> Tensor:
        """What may be attended to: bool [B, 1, group * n, C]."""
        seen = distance >= 0
        if window is not None:
            seen &= distance < window
        return seen.repeat(1, self.group, 1)[:, None]


def attend_buckets(
    buckets: Sequence[Bucket],
    masks: Sequence[Tensor | None],
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    scale: float | None = None,
) -> Tensor:
    """Attend over what is stored, bucket by bucket; masks and `scale` are those of `attend_to`.

    Args:
        queries: [rows, heads, head_dim], rows in the order of the buckets.
        keys, values: [slots, kv_heads, head_dim], one layer of a store.

    Returns:
        [rows, heads, head_dim].
    """
    outputs, start = [], 0
    for bucket, mask in zip(buckets, masks, strict=True):
        stop = start + bucket.sequences * bucket.rows
        q = queries[start:stop].view(bucket.sequences, bucket.rows, *queries.shape[1:])
        k, v = (
            stored.index_select(0, bucket.context).view(bucket.sequences, -1, *stored.shape[1:])
            for stored in (keys, values)
        )
        outputs.append(attend_to(q, k, v, mask, scale).flatten(0, 1))
        start = stop
    return torch.cat(outputs) if len(outputs) > 1 else outputs[0]


def attend_to(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, scale: float | None = None) -> Tensor:
    """Attention of B sequences of n rows over C places each; query heads that share a key head become rows of it, so no
    key is repeated.

    Args:
        queries: [B, n, heads, head_dim].
        keys, values: [B, C, kv_heads, head_dim].
        mask: which places are seen, or what is added to the products, broadcast to [B, kv_heads, group * n, C].
        scale: what products are multiplied by; None is head_dim^-0.5.

    Returns:
        [B, n, heads, head_dim].
    """
    (sequences, rows), (kv_heads, head_dim) = queries.shape[:2], keys.shape[2:]
    q = queries.view(sequences, rows, kv_heads, -1, head_dim).permute(0, 2, 3, 1, 4)
    out = F.scaled_dot_product_attention(
        q.flatten(2, 3), keys.transpose(1, 2), values.transpose(1, 2), attn_mask=mask, scale=scale
    )
    by_head = out.view(sequences, kv_heads, -1, rows, head_dim)
    return by_head.permute(0, 3, 1, 2, 4).reshape(queries.shape)


def by_row_count(batch: Sequence[SeqRows]) -> list[SeqRows]:
    """The sequences that have rows, ordered by how many."""
    return sorted((seq for seq in batch if seq.positions), key=_row_count)


def _row_count(seq: SeqRows) -> int:
    return len(seq.positions)


def causal_buckets(batch: Sequence[SeqRows], store: PagedStore) -> list[Causal]:
    """The buckets of a batch that is ordered by number of rows."""
    return [_bucket(list(same), store) for _, same in groupby(batch, key=_row_count)]


def _bucket(batch: Sequence[SeqRows], store: PagedStore) -> Causal:
    """Built on the CPU and moved once."""
    positions = torch.tensor([list(seq.positions) for seq in batch])
    lengths = positions[:, -1] + 1
    places = torch.arange(int(lengths.max()))
    distance = positions[:, :, None] - places
    context = padded_context([seq.blocks for seq in batch], lengths, store)
    return Causal(Bucket(len(batch), positions.shape[1], context), distance.to(store.device))


def padded_context(tables: Sequence[Sequence[int]], lengths: Tensor, store: PagedStore) -> Tensor:
    """The slots of the first `lengths` [B] places of block tables, on the store's device: int64 [B * longest].

    Padding repeats the sequence's own last slot, so that a row which is not finite harms no other sequence: a masked
    weight of 0 times NaN is NaN.
    """
    width = max(len(table) for table in tables)
    blocks = torch.tensor([[*table, *[0] * (width - len(table))] for table in tables])
    places = torch.minimum(torch.arange(int(lengths.max())), lengths[:, None] - 1)
    return store.slots(places, blocks).flatten().to(store.device)
