"""A model whose hidden states are hashes of everything they depend on. Nothing about it is smooth: one wrong K or V
anywhere changes every choice after it. Integers below 2^53 stand in float64 arrays exactly."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Sequence

import numpy as np

from tests.oracle.model import Array

TABLE = 4096
"""Different distributions over the vocabulary."""


def digest(*parts: object) -> int:
    """A number below 2^53 that depends on all parts."""
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=8).digest(), "little") >> 11


class HashModel:
    """A `Model` of hashes. A hidden state is [3]: the state itself, a hash of the tokens so far, and the layers run.

    The second part is what exits and the top agree on: they choose the same token in about `agreement` of all cases.
    The second exit reads the past. With a `max_source_len` there is an encoder, and every layer reads the whole source.
    """

    def __init__(
        self,
        num_layers: int = 5,
        exit_layers: tuple[int, ...] = (1, 2, 4),
        *,
        vocab_size: int = 13,
        max_model_len: int = 64,
        agreement: float = 0.8,
        max_source_len: int = 0,
    ) -> None:
        self.num_layers = num_layers
        self.exit_layers = exit_layers
        self.vocab_size = vocab_size
        self.max_model_len = max_model_len
        self.eos_token_ids: tuple[int, ...] = (0,)
        self.kv_shape: tuple[int, ...] = (1,)
        self.max_source_len = max_source_len
        self._source: tuple[int, ...] = ()
        rng = np.random.default_rng(0)
        self._logits = rng.random((TABLE, vocab_size))
        self._all_tokens = list(range(vocab_size))
        self._agrees = rng.random(TABLE) < agreement

    def reading(self, source: Sequence[int]) -> HashModel:
        assert bool(source) == bool(self.max_source_len), "a source for a model without encoder, or none for one with"
        model = copy.copy(self)
        model._source = tuple(source)
        return model

    def embed(self, tokens: list[int]) -> Array:
        return np.array([[digest("embed", token), 0, 0] for token in tokens], dtype=np.float64)

    def key_value(self, layer: int, hidden: Array, positions: list[int]) -> tuple[Array, Array]:
        written = [
            [digest(kind, layer, position, row.tolist()) for row, position in zip(hidden, positions, strict=True)]
            for kind in ("key", "value")
        ]
        keys, values = np.array(written, dtype=np.float64)[:, :, None]
        return keys, values

    def run(self, layer: int, hidden: Array, positions: list[int], keys: Array, values: Array) -> Array:
        keys[positions], values[positions] = self.key_value(layer, hidden, positions)
        assert bool(self._source) == bool(self.max_source_len), "nothing for cross-attention to read"
        read = (digest("cross", layer, self._source),) if self._source else ()
        out = []
        for row, position in zip(hidden, positions, strict=True):
            context = keys[: position + 1].tobytes(), values[: position + 1].tobytes()
            assert not np.isnan(keys[: position + 1]).any(), "attended to a position whose KV is not written"
            assert row[2] == layer, f"layer {layer} was given a hidden state that has run {row[2]:.0f} layers"
            state = digest(layer, position, row.tolist(), context, *read)
            out.append([state, state if layer == 0 else row[1], layer + 1])
        return np.array(out, dtype=np.float64)

    def top_logits(self, hidden: Array) -> Array:
        state, history, _ = (int(part) for part in hidden)
        logits = self._logits[state % TABLE].copy()
        if self._agrees[state % TABLE]:
            logits[history % self.vocab_size] += 3
        return np.asarray(logits)

    def join(self, boundary: int, hidden: Array, past: Array) -> Array:
        if boundary != 2:
            return hidden
        return np.array([digest("join", hidden.tolist(), past.tolist()), *hidden[1:]], dtype=np.float64)

    def exit_logits(self, boundary: int, hidden: Array) -> tuple[Array, float | None]:
        assert hidden[2] == self.exit_layers[boundary - 1], f"boundary {boundary} scored a hidden state of another"
        sharpness = 0.5 + 2.5 * digest("sharpness", int(hidden[0])) / 2**53
        return sharpness * self.top_logits(hidden), None

    def vocabulary(self, boundary: int) -> list[int]:
        return self._all_tokens

    def classify(self, boundary: int, hidden: Array) -> float | None:
        return digest("classifier", hidden.tolist()) / 2.0**53
