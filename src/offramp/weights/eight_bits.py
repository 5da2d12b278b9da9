"""Matrices in 8 bits, everything else as it is, in one safetensors file.

A matrix [n, k] whose k is a multiple of 32 is stored as int8 codes [n, k] under its name and float16 scales [n, k /
32] under `<name>.scales`: 32 neighbours in a row share a scale. Those are the numbers of GGUF's Q8_0, laid out apart,
so the native executor's `int8` takes them as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from offramp.errors import WeightsError
from offramp.weights.safetensors import SafetensorsFile, safetensors_bytes
from offramp.weights.source import Array, Blocks, as_tensor

GROUP = 32
SCALES = ".scales"


class EightBitsFile:
    """The tensors of a file, by name; one without matrices in 8 bits will do as well.

    Attributes:
        path: the file.

    Raises:
        WeightsError: a matrix in 8 bits lacks its scales, or they do not fit it; or the file is corrupt.
    """

    def __init__(self, path: Path) -> None:
        self.path, self._file = path, SafetensorsFile(path)
        entries = self._file.entries
        self._scaled = {name for name, entry in entries.items() if entry.dtype == "I8"}
        for name in self._scaled:
            shape, scales = entries[name].shape, entries.get(name + SCALES)
            fits = len(shape) == 2 and not shape[1] % GROUP and scales is not None and scales.dtype == "F16"
            if not fits or scales is None or scales.shape != (shape[0], shape[1] // GROUP):
                raise WeightsError(
                    f"tensor `{name}` in `{path}` is in 8 bits, and needs a float16 tensor `{name}{SCALES}` with one "
                    f"scale for every {GROUP} of a row"
                )
        hidden = {name + SCALES for name in self._scaled}
        self.shapes = {name: entry.shape for name, entry in entries.items() if name not in hidden}
        """Name -> shape of every tensor."""

    def load(self, name: str) -> Array:
        """The tensor; see `offramp.weights.source.WeightSource.load`."""
        if name not in self._scaled:
            return self._file.load(name)
        codes, scales = self._stored(name)
        return np.asarray(codes * np.repeat(scales, GROUP, axis=1).astype(np.float32))

    def block_kind(self, name: str) -> str | None:
        """`Q8_0` for a matrix in 8 bits; see `offramp.weights.source.BlockSource.block_kind`."""
        return "Q8_0" if name in self._scaled else None

    def raw(self, name: str) -> Blocks:
        """A matrix in 8 bits; see `offramp.weights.source.BlockSource.raw`."""
        if name not in self._scaled:
            raise WeightsError(f"tensor `{name}` in `{self.path}` is no quantised matrix")
        codes, scales = self._stored(name)
        blocks = (scales[..., None].view(np.uint8), codes.reshape(len(codes), -1, GROUP).view(np.uint8))
        return Blocks("Q8_0", np.concatenate(blocks, axis=-1).reshape(len(codes), -1))

    def _stored(self, name: str) -> tuple[Array, Array]:
        """Codes and scales of a matrix in 8 bits."""
        entry = self._file.entries[name]
        return as_tensor(self._file.data[entry.start : entry.end], "i1", entry.shape), self._file.load(name + SCALES)


def eight_bits_bytes(tensors: Mapping[str, Array]) -> bytes:
    """The file that holds `tensors`: matrices of several rows in 8 bits where they may be, all else in float16.

    Raises:
        WeightsError: a tensor holds a number that float16 cannot, such as those of a training that diverged.
    """
    return safetensors_bytes(dict(pair for name, tensor in tensors.items() for pair in _stored(name, tensor)))


def half(name: str, tensor: Array) -> Array:
    """A tensor in float16.

    Raises:
        WeightsError: it holds a number that float16 cannot.
    """
    with np.errstate(over="ignore"):
        halved = np.ascontiguousarray(tensor, dtype="<f2")
    if not np.isfinite(halved).all():
        raise WeightsError(
            f"tensor `{name}` holds a number that float16 cannot", hint="the training has diverged: lower `--lr`"
        )
    return halved


def _stored(name: str, tensor: Array) -> list[tuple[str, Array]]:
    """A tensor as it is stored, with its scales."""
    halved = half(name, tensor)
    if tensor.ndim != 2 or len(tensor) == 1 or tensor.shape[1] % GROUP:
        return [(name, halved)]
    groups = np.asarray(tensor, dtype=np.float32).reshape(len(tensor), -1, GROUP)
    scales = (np.abs(groups).max(-1) / 127).astype("<f2")
    wide = scales.astype(np.float32)[..., None]
    codes = np.rint(np.divide(groups, wide, out=np.zeros_like(groups), where=wide > 0))
    return [(name, codes.clip(-127, 127).astype(np.int8).reshape(tensor.shape)), (name + SCALES, scales)]
