"""A T5 in NumPy float64, one layer at a time: the encoder, then a decoder that reads what it made of a source."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from functools import cache

import numpy as np

from offramp.exits.pack import ExitPack
from offramp.models import T5Spec
from tests.oracle.model import Array, OracleModel, rms_norm


class OracleT5(OracleModel):
    """A T5 with an exit pack. `reading` gives the decoder over a source; K and V are [positions, heads, head_dim]."""

    def __init__(
        self, spec: T5Spec, weights: Mapping[str, Array], pack: ExitPack, max_model_len: int, max_source_len: int
    ) -> None:
        super().__init__(spec, weights, pack)
        self.t5 = spec
        self.max_model_len, self.max_source_len = max_model_len, max_source_len
        self._encoded: Array | None = None
        self._encode_once = cache(self._encode)

    def reading(self, source: Sequence[int]) -> OracleT5:
        model = copy.copy(self)
        model._encoded = self._encode_once(tuple(source))
        return model

    def embed(self, tokens: list[int]) -> Array:
        return self._weights["shared.weight"][tokens]

    def key_value(self, layer: int, hidden: Array, positions: list[int]) -> tuple[Array, Array]:
        x = self._normed(f"decoder.block.{layer}.layer.0", hidden)
        return self._heads(f"decoder.block.{layer}.layer.0.SelfAttention.k", x), self._heads(
            f"decoder.block.{layer}.layer.0.SelfAttention.v", x
        )

    def run(self, layer: int, hidden: Array, positions: list[int], keys: Array, values: Array) -> Array:
        assert self._encoded is not None, "nothing for cross-attention to read"
        keys[positions], values[positions] = self.key_value(layer, hidden, positions)
        name = f"decoder.block.{layer}.layer"
        query = self._heads(f"{name}.0.SelfAttention.q", self._normed(f"{name}.0", hidden))
        mixed = []
        for q, p in zip(query, positions, strict=True):
            bias = self._bias("decoder", [other - p for other in range(p + 1)])
            mixed.append(self._mix(q, keys[: p + 1], values[: p + 1], bias))
        hidden = hidden + np.stack(mixed) @ self._weights[f"{name}.0.SelfAttention.o.weight"].T
        query = self._heads(f"{name}.1.EncDecAttention.q", self._normed(f"{name}.1", hidden))
        read = [self._heads(f"{name}.1.EncDecAttention.{part}", self._encoded) for part in "kv"]
        mixed = [self._mix(q, *read) for q in query]
        hidden = hidden + np.stack(mixed) @ self._weights[f"{name}.1.EncDecAttention.o.weight"].T
        return self._feed_forward(f"{name}.2", hidden)

    def _encode(self, source: tuple[int, ...]) -> Array:
        """What the encoder makes of a source: [tokens, d]."""
        hidden = self.embed(list(source))
        for layer in range(self.t5.num_encoder_layers):
            name = f"encoder.block.{layer}.layer"
            x = self._normed(f"{name}.0", hidden)
            query, key, value = (self._heads(f"{name}.0.SelfAttention.{part}", x) for part in "qkv")
            mixed = []
            for p, q in enumerate(query):
                bias = self._bias("encoder", [other - p for other in range(len(source))])
                mixed.append(self._mix(q, key, value, bias))
            hidden = hidden + np.stack(mixed) @ self._weights[f"{name}.0.SelfAttention.o.weight"].T
            hidden = self._feed_forward(f"{name}.1", hidden)
        return rms_norm(hidden, self._weights["encoder.final_layer_norm.weight"], self.t5.rms_norm_eps)

    def _mix(self, query: Array, keys: Array, values: Array, bias: Array | float = 0.0) -> Array:
        """One token's query [heads, head_dim] over keys and values [context, heads, head_dim], with biases [heads,
        context]; nothing is scaled."""
        assert not np.isnan(keys).any(), "attended to a position whose KV is not written"
        scores = np.einsum("hd,chd->hc", query, keys) + bias
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        weights /= weights.sum(-1, keepdims=True)
        return np.asarray(np.einsum("hc,chd->hd", weights, values).reshape(-1))

    def _bias(self, half: str, offsets: list[int]) -> Array:
        """Biases [heads, offsets] of keys so far from the query."""
        table = self._weights[f"{half}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"]
        buckets = [bucket(offset, self.t5, bidirectional=half == "encoder") for offset in offsets]
        return np.asarray(table[buckets].T)

    def _feed_forward(self, name: str, hidden: Array) -> Array:
        x = self._normed(name, hidden)
        weights = {part: self._weights.get(f"{name}.DenseReluDense.{part}.weight") for part in ("wi", "wi_0", "wi_1")}
        if weights["wi"] is not None:
            inner = np.maximum(x @ weights["wi"].T, 0)
        else:
            assert weights["wi_0"] is not None and weights["wi_1"] is not None
            gate = x @ weights["wi_0"].T
            gate = 0.5 * gate * (1 + np.tanh(math.sqrt(2 / math.pi) * (gate + 0.044715 * gate**3)))
            inner = gate * (x @ weights["wi_1"].T)
        return np.asarray(hidden + inner @ self._weights[f"{name}.DenseReluDense.wo.weight"].T)

    def _heads(self, name: str, x: Array) -> Array:
        return np.asarray((x @ self._weights[f"{name}.weight"].T).reshape(len(x), self.t5.num_heads, -1))

    def _normed(self, name: str, x: Array) -> Array:
        return rms_norm(x, self._weights[f"{name}.layer_norm.weight"], self.t5.rms_norm_eps)


def bucket(offset: int, spec: T5Spec, *, bidirectional: bool) -> int:
    """The bucket of a key's position less the query's (Raffel et al. 2020)."""
    count, first, distance = spec.num_buckets, 0, max(-offset, 0)
    if bidirectional:
        count //= 2
        first, distance = (count if offset > 0 else 0), abs(offset)
    exact = count // 2
    if distance < exact:
        return first + distance
    far = math.log(distance / exact) / math.log(spec.max_distance / exact)
    return first + min(exact + int(far * (count - exact)), count - 1)
