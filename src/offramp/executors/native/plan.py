"""Which matrices a model is packed into, of which type, and which tensors they are made of.

The plan follows from the model's description and from how its tensors are stored; nothing of a tensor is read for it.
So it also says what a cache file must look like before one is opened.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

from offramp.executors.native.layout import PANEL, WeightType, matrix_bytes, round_up
from offramp.models.spec import ModelSpec
from offramp.weights.source import BlockSource, WeightSource


class Types(NamedTuple):
    """Types of the layers' matrices, of embedding and LM head, and of the passing matrices."""

    layer: WeightType
    table: WeightType
    passing: WeightType


DTYPES: Mapping[str, Types] = MappingProxyType(
    {
        "float32": Types("f32", "f32", "f32"),
        "float16": Types("f16", "f16", "f16"),
        "bfloat16": Types("bf16", "bf16", "f16"),
        "int8": Types("i8", "i8", "i8"),
        "int4": Types("i4m", "i8", "i8"),
    }
)
"""Weight types by the names users know. Embedding and LM head are int8 under int4, as in GGUF files.

A passing matrix is a projection of K and V times a norm, so it is rounded anew whatever the file holds; 8 bits of it do
not show beside the approximation that passing is.
"""


@dataclass(frozen=True, slots=True)
class Part:
    """A tensor's place in a packed matrix: its rows fill panels `first`, `first + step`, ...

    `norm` names a norm whose weights multiply the columns.
    """

    tensor: str
    rows: int
    first: int = 0
    step: int = 1
    norm: str | None = None


@dataclass(frozen=True, slots=True)
class MatrixPlan:
    """A packed matrix to be made."""

    name: str
    type: WeightType
    n: int
    k: int
    parts: tuple[Part, ...]

    @property
    def num_bytes(self) -> int:
        """Bytes of the packed matrix."""
        return matrix_bytes(self.type, self.n, self.k)


def plan_matrices(spec: ModelSpec, source: WeightSource, dtype: str) -> tuple[MatrixPlan, ...]:
    """All matrices of a model under `dtype` (one of `DTYPES`), the largest first."""
    types = DTYPES[dtype]
    d, vocab = spec.hidden_size, spec.vocab_size

    def table(name: str, tensor: str) -> MatrixPlan:
        return MatrixPlan(name, types.table, vocab, d, (Part(tensor, vocab),))

    plans = [table("embedding", "model.embed_tokens.weight")]
    if not spec.tie_word_embeddings:
        plans.append(table("lm_head", "lm_head.weight"))
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
        return MatrixPlan(f"{index}.{name}", _layer_type(types.layer, source, parts), n, k, parts)

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


def _layer_type(usual: WeightType, source: WeightSource, parts: tuple[Part, ...]) -> WeightType:
    """4-bit weights have minima unless all that they are made of has none."""
    if usual == "i4m" and isinstance(source, BlockSource):
        kinds = {source.block_kind(part.tensor) for part in parts}
        if kinds == {"Q4_0"}:
            return "i4"
    return usual
