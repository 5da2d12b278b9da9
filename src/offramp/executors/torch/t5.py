"""The layers of a T5: the encoder, the store of what it makes of sources, and the decoder."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from offramp.executors.torch.layers import project_passed, rms_norm
from offramp.executors.torch.store import PagedStore
from offramp.executors.torch.t5_layers import (
    CrossAttention,
    EncoderAttention,
    RelativeAttention,
    cross_attention,
    feed_forward,
    self_attention,
)
from offramp.executors.torch.t5_weights import load_t5_weights
from offramp.models import T5Spec
from offramp.types.executor import SeqRows, SourceRows
from offramp.weights.source import WeightSource


class T5Trunk:
    """An `offramp.executors.torch.trunk.Trunk` over an encoder-decoder model.

    The decoder's K and V lie in `store`, and those of its cross-attention in `sources`.

    Raises:
        WeightsError: a tensor cannot be read.
    """

    def __init__(self, spec: T5Spec, source: WeightSource, store: PagedStore, sources: PagedStore) -> None:
        self._spec, self._store, self._sources = spec, store, sources
        self._weights = load_t5_weights(spec, source, store.device, store.dtype)
        self.final_norm, self.lm_head = self._weights.decoder.final_norm, self._weights.lm_head

    def embed(self, tokens: Tensor) -> Tensor:
        """See `Trunk.embed`."""
        return self._weights.embedding.index_select(0, tokens)

    def encode(self, batch: Sequence[SourceRows]) -> None:
        """See `Trunk.encode`. All layers' K and V are one GEMM over what the encoder gives."""
        batch = sorted((source for source in batch if source.tokens), key=lambda source: len(source.tokens))
        if not batch:
            return
        spec, weights = self._spec, self._weights
        tokens = [token for source in batch for token in source.tokens]
        slots = [self._sources.slot(p, source.blocks) for source in batch for p in range(len(source.tokens))]
        hidden = self.embed(self._to_device(tokens))
        attention = EncoderAttention([len(source.tokens) for source in batch], weights.encoder.bias)
        for layer in weights.encoder.layers:
            hidden = self_attention(spec, layer.attention, hidden, attention.attend)
            hidden = feed_forward(spec, layer.feed_forward, hidden)
        hidden = rms_norm(hidden, weights.encoder.final_norm, spec.rms_norm_eps)
        kv = F.linear(hidden, weights.sources.flatten(0, 2))
        keys, values = kv.view(-1, spec.num_layers, 2, spec.num_heads, spec.head_dim).permute(2, 1, 0, 3, 4)
        self._sources.write_kv(slice(None), self._to_device(slots), keys, values)

    def run(self, layers: range, batch: Sequence[SeqRows], slots: Tensor, hidden: Tensor) -> Tensor:
        """See `Trunk.run`."""
        spec = self._spec
        attention = RelativeAttention(batch, self._store, self._weights.decoder.bias)
        cross = CrossAttention(batch, self._sources)
        for index in layers:
            layer = self._weights.decoder.layers[index]
            assert layer.cross is not None
            attend = partial(self._write_and_attend, attention, index, slots)
            hidden = self_attention(spec, layer.attention, hidden, attend)
            source = partial(cross.attend, keys=self._sources.keys[index], values=self._sources.values[index])
            hidden = cross_attention(spec, layer.cross, hidden, source)
            hidden = feed_forward(spec, layer.feed_forward, hidden)
        return hidden

    def project(self, layers: slice, batch: Sequence[SeqRows], hidden: Tensor) -> tuple[Tensor, Tensor]:
        """See `Trunk.project`. Positions do not enter, and cross-attention has its K and V."""
        return project_passed(self._spec, layers, self._weights.passing, hidden, None)

    def _write_and_attend(
        self, attention: RelativeAttention, index: int, slots: Tensor, queries: Tensor, keys: Tensor, values: Tensor
    ) -> Tensor:
        self._store.write_kv(slice(index, index + 1), slots, keys[None], values[None])
        return attention.attend(queries, self._store.keys[index], self._store.values[index])

    def _to_device(self, values: list[int]) -> Tensor:
        return torch.tensor(values, device=self._store.device)
