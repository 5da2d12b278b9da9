"""The pieces of a T5 layer: attention over places at relative positions, over a source, and the feed-forward sublayer.

Products of queries and keys are not scaled; what is not attended to is at -infinity.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby

import torch
from torch import Tensor
from torch.nn import functional as F

from offramp.executors.torch.attention import Bucket, attend_buckets, attend_to, causal_buckets, padded_context
from offramp.executors.torch.layers import rms_norm
from offramp.executors.torch.store import PagedStore
from offramp.executors.torch.t5_weights import AttentionWeights, FeedForwardWeights
from offramp.models import T5Spec
from offramp.types.executor import SeqRows

ROWS = 1024
"""How many rows of a source attend at once."""

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
"""From queries, keys and values of rows to what they attend to, [rows, heads, head_dim] each."""


def self_attention(spec: T5Spec, weights: AttentionWeights, hidden: Tensor, attend: Attend) -> Tensor:
    """The self-attention sublayer over rows [rows, hidden_size]."""
    x = rms_norm(hidden, weights.norm, spec.rms_norm_eps)
    q, k, v = F.linear(x, weights.inputs).view(-1, 3, spec.num_heads, spec.head_dim).unbind(1)
    return hidden + F.linear(attend(q, k, v).flatten(1), weights.out)


def cross_attention(
    spec: T5Spec, weights: AttentionWeights, hidden: Tensor, attend: Callable[[Tensor], Tensor]
) -> Tensor:
    """The cross-attention sublayer over rows [rows, hidden_size]."""
    q = F.linear(rms_norm(hidden, weights.norm, spec.rms_norm_eps), weights.inputs)
    attended = attend(q.view(-1, spec.num_heads, spec.head_dim))
    return hidden + F.linear(attended.flatten(1), weights.out)


def feed_forward(spec: T5Spec, weights: FeedForwardWeights, hidden: Tensor) -> Tensor:
    """The feed-forward sublayer over rows [rows, hidden_size]."""
    x = F.linear(rms_norm(hidden, weights.norm, spec.rms_norm_eps), weights.up)
    if spec.is_gated:
        activated, gate = x.chunk(2, dim=-1)
        x = F.gelu(activated, approximate="tanh") * gate
    else:
        x = F.relu(x)
    return hidden + F.linear(x, weights.down)


def bias_at(bias: Tensor, offsets: Tensor) -> Tensor:
    """What attention adds at `offsets` [..., n, C], key position less query position: [..., heads, n, C].

    `bias` [heads, 2 max_distance + 1] is that of offsets around 0.
    """
    farthest = bias.shape[1] // 2
    return bias[:, offsets.clamp(-farthest, farthest) + farthest].movedim(0, -3)


class RelativeAttention:
    """Causal self-attention of one batch over a paged store, with relative positions."""

    def __init__(self, batch: Sequence[SeqRows], store: PagedStore, bias: Tensor) -> None:
        causal = causal_buckets(batch, store)
        self._buckets = [bucket for bucket, _ in causal]
        self._masks = [
            bias_at(bias, -distance).masked_fill(distance[:, None] < 0, -torch.inf) for _, distance in causal
        ]

    def attend(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Attend over a layer's `keys` and `values` [slots, heads, head_dim]; queries [rows, heads, head_dim]."""
        return attend_buckets(self._buckets, self._masks, queries, keys, values, scale=1.0)


class CrossAttention:
    """Attention of one batch over the store of sources. Every place of a source is seen."""

    def __init__(self, batch: Sequence[SeqRows], store: PagedStore) -> None:
        self._buckets: list[Bucket] = []
        self._masks: list[Tensor | None] = []
        for rows, same in groupby(batch, key=lambda seq: len(seq.positions)):
            sources = [seq.source for seq in same if seq.source is not None]
            lengths = torch.tensor([source.length for source in sources])
            context = padded_context([source.blocks for source in sources], lengths, store)
            self._buckets.append(Bucket(len(sources), rows, context))
            seen = torch.arange(int(lengths.max())) < lengths[:, None]
            self._masks.append(None if seen.all() else seen[:, None, None].to(store.device))

    def attend(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Attend over a layer's `keys` and `values` [slots, heads, head_dim]; queries [rows, heads, head_dim]."""
        return attend_buckets(self._buckets, self._masks, queries, keys, values, scale=1.0)


class EncoderAttention:
    """Attention of whole sources over themselves, whose `lengths` ascend: at once for those of one length.

    What is added to products takes heads * `ROWS` * length numbers at a time, however long a source is.
    """

    def __init__(self, lengths: Sequence[int], bias: Tensor) -> None:
        self._groups = [(length, len(list(same))) for length, same in groupby(lengths)]
        self._bias, self._places = bias, torch.arange(lengths[-1], device=bias.device)
        self._first = bias_at(bias, self._places - self._places[:ROWS, None])

    def attend(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Attend over rows [rows, heads, head_dim] of the sources, one after the other."""
        outputs, start = [], 0
        for length, count in self._groups:
            rows = slice(start, start + length * count)
            q, k, v = (x[rows].view(count, length, *x.shape[1:]) for x in (queries, keys, values))
            chunks = [slice(first, min(first + ROWS, length)) for first in range(0, length, ROWS)]
            parts = [attend_to(q[:, chunk], k, v, self._added(chunk, length), scale=1.0) for chunk in chunks]
            outputs.append(torch.cat(parts, dim=1).flatten(0, 1))
            start = rows.stop
        return torch.cat(outputs)

    def _added(self, rows: slice, length: int) -> Tensor:
        """What is added to the products of some rows of a source with all of it: [heads, rows, length]."""
        if rows.start == 0:
            return self._first[:, : rows.stop, :length]
        return bias_at(self._bias, self._places[:length] - self._places[rows, None])
