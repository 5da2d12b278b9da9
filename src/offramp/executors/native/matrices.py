"""What a packed matrix is made of, and of which type the matrices of a model are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

from offramp.executors.native.layout import WeightType, matrix_bytes
from offramp.models import Spec
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


def plan_tables(spec: Spec, embedding: str, types: Types) -> list[MatrixPlan]:
    """The embedding, a tensor of this name, and the LM head unless it is the same."""
    d, vocab = spec.hidden_size, spec.vocab_size
    tables = {"embedding": embedding} | ({} if spec.tie_word_embeddings else {"lm_head": spec.lm_head})
    return [MatrixPlan(name, types.table, vocab, d, (Part(tensor, vocab),)) for name, tensor in tables.items()]


def layer_type(usual: WeightType, source: WeightSource, parts: tuple[Part, ...]) -> WeightType:
    """4-bit weights have minima unless all that they are made of has none."""
    if usual == "i4m" and isinstance(source, BlockSource):
        kinds = {source.block_kind(part.tensor) for part in parts}
        if kinds == {"Q4_0"}:
            return "i4"
    return usual
