"""A Llama-shaped model in NumPy float64, one layer at a time. Slow and obvious: nothing is batched, paged or fused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from offramp.exits.pack import ExitPack, ExitSpec
from offramp.models import ModelSpec, Spec

Array = np.ndarray


class Model(Protocol):
    """What the oracle asks of a model. One with an encoder (`max_source_len` > 0) is asked through `reading`.

    Hidden states are [rows, d]; K and V of one layer are [positions, *kv_shape]. Layers count from 0, boundaries
    from 1.
    """

    num_layers: int
    exit_layers: tuple[int, ...]
    vocab_size: int
    max_model_len: int
    eos_token_ids: tuple[int, ...]
    kv_shape: tuple[int, ...]
    max_source_len: int

    def reading(self, source: Sequence[int]) -> Model:
        """The decoder whose cross-attention reads `source`; the model itself where it has no encoder."""
        ...

    def embed(self, tokens: list[int]) -> Array:
        """Hidden states of tokens at the embedding."""
        ...

    def key_value(self, layer: int, hidden: Array, positions: list[int]) -> tuple[Array, Array]:
        """K and V that `layer` projects from `hidden`: two arrays [rows, *kv_shape]."""
        ...

    def run(self, layer: int, hidden: Array, positions: list[int], keys: Array, values: Array) -> Array:
        """Run `layer` over the rows: write their K and V, then let each attend to positions 0..its own."""
        ...

    def top_logits(self, hidden: Array) -> Array:
        """Logits [vocab] of one hidden state [d] after the last layer."""
        ...

    def join(self, boundary: int, hidden: Array, past: Array) -> Array:
        """What the head of exit `boundary` reads, and leaves as the deep state: of a hidden state [d] and the deep
        state [d] of the token before."""
        ...

    def exit_logits(self, boundary: int, hidden: Array) -> tuple[Array, float | None]:
        """Logits [vocab] at exit `boundary` of what `join` gave, -inf outside its vocabulary, and the logit of "other"
        if any."""
        ...

    def vocabulary(self, boundary: int) -> list[int]:
        """The token ids that exit `boundary` scores."""
        ...

    def classify(self, boundary: int, hidden: Array) -> float | None:
        """The exit's classifier on what `join` gave, in [0, 1]; None if it has none."""
        ...


def rms_norm(x: Array, weight: Array, eps: float) -> Array:
    """x [..., d] divided by its root mean square, times weight [d]."""
    return np.asarray(x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * weight)


def silu(x: Array) -> Array:
    return np.asarray(x / (1 + np.exp(-x)))


def sigmoid(x: float) -> float:
    return float(1 / (1 + np.exp(-x)))


class OracleModel:
    """A Llama with an exit pack: a `Model` whose K and V are [positions, kv_heads, head_dim]."""

    max_source_len = 0

    def __init__(self, spec: Spec, weights: Mapping[str, Array], pack: ExitPack) -> None:
        self.spec = spec
        self.pack = pack
        self.num_layers = spec.num_layers
        self.exit_layers = pack.layers
        self.vocab_size = spec.vocab_size
        self.max_model_len = spec.max_model_len
        self.eos_token_ids = spec.eos_token_ids
        self.kv_shape: tuple[int, ...] = (spec.num_kv_heads, spec.head_dim)
        self._weights = {name: np.asarray(w, dtype=np.float64) for name, w in weights.items()}

    def reading(self, source: Sequence[int]) -> OracleModel:
        assert not source
        return self

    def embed(self, tokens: list[int]) -> Array:
        return self._weights["model.embed_tokens.weight"][tokens]

    def key_value(self, layer: int, hidden: Array, positions: list[int]) -> tuple[Array, Array]:
        x = rms_norm(hidden, self._layer(layer, "input_layernorm"), self.spec.rms_norm_eps)
        heads = (len(positions), *self.kv_shape)
        key = (x @ self._layer(layer, "self_attn.k_proj").T).reshape(heads)
        value = (x @ self._layer(layer, "self_attn.v_proj").T).reshape(heads)
        return self._rotate(key, positions), value

    def run(self, layer: int, hidden: Array, positions: list[int], keys: Array, values: Array) -> Array:
        keys[positions], values[positions] = self.key_value(layer, hidden, positions)
        x = rms_norm(hidden, self._layer(layer, "input_layernorm"), self.spec.rms_norm_eps)
        query = (x @ self._layer(layer, "self_attn.q_proj").T).reshape(len(positions), self.spec.num_heads, -1)
        query = self._rotate(query, positions)
        mixed = np.stack(
            [self._attend(q, keys[: p + 1], values[: p + 1]) for q, p in zip(query, positions, strict=True)]
        )
        hidden = hidden + mixed.reshape(len(positions), -1) @ self._layer(layer, "self_attn.o_proj").T
        x = rms_norm(hidden, self._layer(layer, "post_attention_layernorm"), self.spec.rms_norm_eps)
        gated = silu(x @ self._layer(layer, "mlp.gate_proj").T) * (x @ self._layer(layer, "mlp.up_proj").T)
        return np.asarray(hidden + gated @ self._layer(layer, "mlp.down_proj").T)

    def top_logits(self, hidden: Array) -> Array:
        x = rms_norm(hidden, self._final_norm(), self.spec.rms_norm_eps)
        return np.asarray(self._lm_head() @ x * self.spec.head_scale)

    def join(self, boundary: int, hidden: Array, past: Array) -> Array:
        exit, eps = self.pack.exits[boundary - 1], self.spec.rms_norm_eps
        if exit.past == "none":
            return hidden
        norms = (self.pack.tensor(exit.layer, f"past.{name}_norm.weight") for name in ("hidden", "state"))
        pair = [rms_norm(x, norm, eps) for x, norm in zip((hidden, past), norms, strict=True)]
        return np.asarray(past + self.pack.tensor(exit.layer, "past.weight") @ np.concatenate(pair))

    def exit_logits(self, boundary: int, hidden: Array) -> tuple[Array, float | None]:
        exit = self.pack.exits[boundary - 1]
        assert exit.adapter == "none", "the oracle's toy packs have no adapters"
        x = self._exit_norm(exit, hidden) * (1.0 if exit.head == "own" else self.spec.head_scale)
        ids = self.vocabulary(boundary)
        rows = self.pack.tensor(exit.layer, "head.weight") if exit.head == "own" else self._lm_head()[ids]
        logits = np.full(self.spec.vocab_size, -np.inf)
        logits[ids] = rows @ x / exit.temperature
        if not exit.other:
            return logits, None
        weight, bias = self.pack.tensor(exit.layer, "other.weight"), self.pack.tensor(exit.layer, "other.bias")
        return logits, float((weight @ x + bias)[0] / exit.temperature)

    def vocabulary(self, boundary: int) -> list[int]:
        name = self.pack.exits[boundary - 1].vocabulary
        return list(range(self.spec.vocab_size)) if name is None else list(self.pack.vocabularies[name])

    def classify(self, boundary: int, hidden: Array) -> float | None:
        exit = self.pack.exits[boundary - 1]
        if exit.classifier == "none":
            return None
        assert exit.classifier == "linear", "the oracle's toy packs have linear classifiers"
        weight = self.pack.tensor(exit.layer, "classifier.weight")
        bias = self.pack.tensor(exit.layer, "classifier.bias")
        return sigmoid(float((weight @ self._exit_norm(exit, hidden) + bias)[0]))

    def _exit_norm(self, exit: ExitSpec, hidden: Array) -> Array:
        if exit.norm == "none":
            return hidden
        weight = self.pack.tensor(exit.layer, "norm.weight") if exit.norm == "own" else self._final_norm()
        return rms_norm(hidden, weight, self.spec.rms_norm_eps)

    def _attend(self, query: Array, keys: Array, values: Array) -> Array:
        """Attention of one token: query [heads, head_dim] over keys and values [context, kv_heads, head_dim]."""
        assert not np.isnan(keys).any(), "attended to a position whose KV is not written"
        group = self.spec.num_heads // self.spec.num_kv_heads
        keys, values = np.repeat(keys, group, axis=1), np.repeat(values, group, axis=1)
        scores = np.einsum("hd,chd->hc", query, keys) / np.sqrt(self.spec.head_dim)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        weights /= weights.sum(-1, keepdims=True)
        return np.asarray(np.einsum("hc,chd->hd", weights, values))

    def _rotate(self, x: Array, positions: list[int]) -> Array:
        """Rotary embedding: x [rows, heads, head_dim], first half paired with second half."""
        assert isinstance(self.spec, ModelSpec)
        half = self.spec.head_dim // 2
        frequency = self.spec.rope.theta ** (-np.arange(half) / half)
        angle = np.array(positions, dtype=np.float64)[:, None, None] * frequency
        first, second = x[..., :half], x[..., half:]
        cos, sin = np.cos(angle), np.sin(angle)
        return np.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)

    def _layer(self, layer: int, name: str) -> Array:
        return self._weights[f"model.layers.{layer}.{name}.weight"]

    def _final_norm(self) -> Array:
        return self._weights[self.spec.final_norm]

    def _lm_head(self) -> Array:
        return self._weights[self.spec.lm_head]
