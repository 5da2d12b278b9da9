"""Which matrices a T5 is packed into, and which tensors they are made of; see `plan`."""

from __future__ import annotations

from offramp.executors.native.layout import PANEL, round_up
from offramp.executors.native.matrices import MatrixPlan, Part, Types, layer_type, plan_tables
from offramp.models import T5Spec
from offramp.weights.source import WeightSource


def plan_t5_matrices(spec: T5Spec, source: WeightSource, types: Types) -> tuple[MatrixPlan, ...]:
    """All matrices: tables, then the decoder's layers by number, then the encoder's by `encoder` and number."""
    plans = plan_tables(spec, "shared.weight", types)
    for layer in range(spec.num_layers):
        plans += _Planner(spec, source, types, "decoder", layer).decoder_layer()
    for layer in range(spec.num_encoder_layers):
        plans += _Planner(spec, source, types, "encoder", layer).layer()
    return tuple(plans)


class _Planner:
    """Plans one layer."""

    def __init__(self, spec: T5Spec, source: WeightSource, types: Types, half: str, layer: int) -> None:
        self._spec, self._source, self._types, self._half = spec, source, types, half
        self._tensors = f"{half}.block.{layer}.layer"
        self._name = f"{layer}" if half == "decoder" else f"encoder.{layer}"
        self._width = spec.num_heads * spec.head_dim
        self._panels = round_up(self._width, PANEL) // PANEL

    def layer(self) -> list[MatrixPlan]:
        """What every layer has."""
        hidden = self._spec.hidden_size
        return [
            self._stacked("qkv", "0.SelfAttention", "qkv"),
            self._plan("out", hidden, self._width, self._part("0.SelfAttention.o", hidden)),
            *self._feed_forward(),
        ]

    def decoder_layer(self) -> list[MatrixPlan]:
        """And what a decoder's has besides."""
        hidden, norm = self._spec.hidden_size, f"{self._tensors}.0.layer_norm.weight"
        passing = self._stacked("passing", "0.SelfAttention", "kv", norm)
        return [
            *self.layer(),
            self._stacked("cross_q", "1.EncDecAttention", "q"),
            self._stacked("cross_kv", "1.EncDecAttention", "kv"),
            self._plan("cross_out", hidden, self._width, self._part("1.EncDecAttention.o", hidden)),
            MatrixPlan(passing.name, self._types.passing, passing.n, passing.k, passing.parts),
        ]

    def _feed_forward(self) -> list[MatrixPlan]:
        inner, hidden = self._spec.intermediate_size, self._spec.hidden_size
        prefix = f"{2 if self._half == 'decoder' else 1}.DenseReluDense"
        names = ("wi_0", "wi_1") if self._spec.is_gated else ("wi",)
        up = [self._part(f"{prefix}.{name}", inner, at, len(names)) for at, name in enumerate(names)]
        return [
            self._plan("gate_up", len(names) * round_up(inner, PANEL), hidden, *up),
            self._plan("down", hidden, inner, self._part(f"{prefix}.wo", hidden)),
        ]

    def _stacked(self, name: str, attention: str, letters: str, norm: str | None = None) -> MatrixPlan:
        """Projections of an attention, each from a panel of its own on."""
        parts = [
            self._part(f"{attention}.{letter}", self._width, at * self._panels, norm=norm)
            for at, letter in enumerate(letters)
        ]
        return self._plan(name, len(letters) * self._panels * PANEL, self._spec.hidden_size, *parts)

    def _part(self, tensor: str, rows: int, first: int = 0, step: int = 1, norm: str | None = None) -> Part:
        return Part(f"{self._tensors}.{tensor}.weight", rows, first, step, norm)

    def _plan(self, name: str, n: int, k: int, *parts: Part) -> MatrixPlan:
        return MatrixPlan(f"{self._name}.{name}", layer_type(self._types.layer, self._source, parts), n, k, parts)
