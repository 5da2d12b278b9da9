"""The layers of a model of the Llama line."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from offramp.executors.torch.attention import Attention
from offramp.executors.torch.layers import Rotary, project_passed, run_layer
from offramp.executors.torch.store import PagedStore
from offramp.executors.torch.trunk import positions_of
from offramp.executors.torch.weights import load_weights
from offramp.models import ModelSpec
from offramp.types.executor import SeqRows, SourceRows
from offramp.weights.source import WeightSource


class LlamaTrunk:
    """An `offramp.executors.torch.trunk.Trunk` over a decoder-only model; K and V lie in `store`.

    Raises:
        WeightsError: a tensor cannot be read.
    """

    def __init__(self, spec: ModelSpec, source: WeightSource, store: PagedStore) -> None:
        self._spec, self._store = spec, store
        self._weights = load_weights(spec, source, store.device, store.dtype)
        self._rotary = Rotary(spec, store.device, store.dtype)
        self.final_norm, self.lm_head = self._weights.final_norm, self._weights.lm_head

    def embed(self, tokens: Tensor) -> Tensor:
        """See `Trunk.embed`."""
        return self._weights.embedding.index_select(0, tokens)

    def run(self, layers: range, batch: Sequence[SeqRows], slots: Tensor, hidden: Tensor) -> Tensor:
        """See `Trunk.run`."""
        rotation = self._rotary.at(positions_of(batch))
        attention = Attention(batch, self._store, self._spec.num_heads // self._spec.num_kv_heads)
        for index in layers:
            weights = self._weights.layers[index]
            hidden = run_layer(self._spec, index, weights, hidden, rotation, slots, attention, self._store)
        return hidden

    def project(self, layers: slice, batch: Sequence[SeqRows], hidden: Tensor) -> tuple[Tensor, Tensor]:
        """See `Trunk.project`."""
        rotation = self._rotary.at(positions_of(batch))
        return project_passed(self._spec, layers, self._weights.passing, hidden, rotation)

    def encode(self, batch: Sequence[SourceRows]) -> None:
        """Never asked for: the model has no encoder."""
        raise AssertionError("the model has no encoder")
