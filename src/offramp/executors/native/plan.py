"""Which matrices a model is packed into, of which type, and which tensors they are made of.

The plan follows from the model's description and from how its tensors are stored; nothing of a tensor is read for it.
So it also says what a cache file must look like before one is opened.
"""

from __future__ import annotations

from offramp.executors.native.layout import PANEL, round_up
from offramp.executors.native.matrices import DTYPES, MatrixPlan, Part, Types, layer_type, plan_tables
from offramp.executors.native.plan_t5 import plan_t5_matrices
from offramp.models import ModelSpec, Spec, T5Spec
from offramp.weights.source import WeightSource


def plan_matrices(spec: Spec, source: WeightSource, dtype: str) -> tuple[MatrixPlan, ...]:
    """All matrices of a model under `dtype` (one of `DTYPES`), the largest first."""
    types = DTYPES[dtype]
    if isinstance(spec, T5Spec):
        return plan_t5_matrices(spec, source, types)
    plans = plan_tables(spec, "model.embed_tokens.weight", types)
    for index in range(spec.num_layers):
        plans += _plan_layer(spec, source, types, index)
    return tuple(plans)


def _plan_layer(spec: ModelSpec, source: WeightSource, types: Types, index: int) -> list[MatrixPlan]:
    prefix = f"model.layers.{index}"
    d, m = spec.hidden_size, spec.intermediate_size
    q, kv = spec.num_heads * spec.head_dim, spec.num_kv_heads * spec.head_dim
    q_panels, kv_panels = round_up(q, PANEL) // PANEL, round_up(kv, PANEL) // PANEL

    def attention(name: str, rows: int, first: int = 0, norm: str | None = None) -> Part:
        return Part(f"{prefix}.self_attn.{name}_proj.weight", rows, first, norm=norm)

    def mlp(name: str, rows: int, first: int = 0, step: int = 1) -> Part:
        return Part(f"{prefix}.mlp.{name}_proj.weight", rows, first, step)

    def plan(name: str, n: int, k: int, *parts: Part) -> MatrixPlan:
        return MatrixPlan(f"{index}.{name}", layer_type(types.layer, source, parts), n, k, parts)

    norm = f"{prefix}.input_layernorm.weight"
    passing = (attention("k", kv, 0, norm), attention("v", kv, kv_panels, norm))
    return [
        plan(
            "qkv",
            PANEL * (q_panels + 2 * kv_panels),
            d,
            attention("q", q),
            attention("k", kv, q_panels),
            attention("v", kv, q_panels + kv_panels),
        ),
        plan("out", d, q, attention("o", d)),
        plan("gate_up", 2 * round_up(m, PANEL), d, mlp("gate", m, 0, 2), mlp("up", m, 1, 2)),
        plan("down", d, m, mlp("down", d)),
        MatrixPlan(f"{index}.passing", types.passing, PANEL * 2 * kv_panels, d, passing),
    ]
