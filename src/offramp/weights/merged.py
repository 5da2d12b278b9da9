"""Weights with a low-rank change merged in."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import numpy as np

from offramp.weights.source import Array, Blocks, BlockSource, WeightSource


class LowRank(Protocol):
    """A change B A of some matrices (LoRA, Hu et al. 2021)."""

    @property
    def path(self) -> Path:
        """The file that it lies in."""
        ...

    @property
    def changed(self) -> frozenset[str]:
        """The names of the matrices that it changes."""
        ...

    def factors(self, name: str) -> tuple[Array, Array]:
        """A [rank, columns] and B [rows, rank] of a changed matrix [rows, columns]."""
        ...


class MergedWeights:
    """A `BlockSource` that gives W + B A for the matrices that `change` changes, and all else as `source` has it.

    A changed matrix has no lossless blocks any more.
    """

    def __init__(self, source: WeightSource, change: LowRank) -> None:
        self._source, self._change = source, change

    @property
    def files(self) -> tuple[Path, ...]:
        """Those of the source and the one of the change; none where the source has none."""
        files = self._source.files
        return (*files, self._change.path) if files else ()

    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Those of the source."""
        return self._source.shapes()

    def load(self, name: str) -> Array:
        """The tensor; see `WeightSource.load`. A changed one is float32."""
        array = self._source.load(name)
        if name not in self._change.changed:
            return array
        a, b = (factor.astype(np.float32) for factor in self._change.factors(name))
        merged: Array = array + b @ a
        return merged

    def block_kind(self, name: str) -> str | None:
        """How a matrix is quantised; None where it is changed, too."""
        if name in self._change.changed or not isinstance(self._source, BlockSource):
            return None
        return self._source.block_kind(name)

    def raw(self, name: str) -> Blocks:
        """The stored blocks of a matrix that has a `block_kind`."""
        assert isinstance(self._source, BlockSource) and name not in self._change.changed
        return self._source.raw(name)
