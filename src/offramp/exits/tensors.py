"""The tensors of an exit pack: matrices in 8 bits, everything else in float16, in one safetensors file.

A matrix [n, k] whose k is a multiple of 32 is stored as int8 codes [n, k] under its name and float16 scales [n, k /
32] under `<name>.scales`: 32 neighbours in a row share a scale, as in the native executor's `int8`, which takes them
as they are. (https://github.com/huggingface/safetensors, format section)
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from offramp.errors import PackError
from offramp.weights.safetensors import SafetensorsFile, safetensors_bytes
from offramp.weights.source import Array, as_tensor

GROUP = 32
SCALES = ".scales"


class PackTensors:
    """The tensors of a file, by name.

    Attributes:
        path: the file.

    Raises:
        PackError: a matrix in 8 bits lacks its scales, or they do not fit it.
        WeightsError: the file is corrupt.
    """

    def __init__(self, path: Path) -> None:
        self.path, self._file = path, SafetensorsFile(path)
        entries = self._file.entries
        self._scaled = {name for name, entry in entries.items() if entry.dtype == "I8"}
        for name in self._scaled:
            shape, scales = entries[name].shape, entries.get(name + SCALES)
            if len(shape) != 2 or shape[1] % GROUP or scales is None or scales.shape != (shape[0], shape[1] // GROUP):
                raise PackError(
                    f"tensor `{name}` in `{path}` is in 8 bits, and needs a tensor `{name}{SCALES}` with one scale for "
                    f"every {GROUP} of a row"
                )

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Name -> shape of every tensor."""
        scales = {name + SCALES for name in self._scaled}
        return {name: entry.shape for name, entry in self._file.entries.items() if name not in scales}

    def load(self, name: str) -> Array:
        """The tensor; see `offramp.weights.source.WeightSource.load`."""
        if name not in self._scaled:
            return self._file.load(name)
        entry = self._file.entries[name]
        codes = as_tensor(self._file.data[entry.start : entry.end], "i1", entry.shape)
        scales = self._file.load(name + SCALES)
        return np.asarray(codes * np.repeat(scales, GROUP, axis=1).astype(np.float32))


def pack_tensors(tensors: Mapping[str, Array]) -> bytes:
    """The file that holds `tensors`.

    Raises:
        PackError: a tensor holds a number that float16 cannot, such as those of a training that diverged.
    """
    return safetensors_bytes(dict(pair for name, tensor in tensors.items() for pair in _stored(name, tensor)))


def _stored(name: str, tensor: Array) -> list[tuple[str, Array]]:
    """A tensor as it is stored, with its scales."""
    with np.errstate(over="ignore"):
        half = np.ascontiguousarray(tensor, dtype="<f2")
    if not np.isfinite(half).all():
        raise PackError(
            f"tensor `{name}` holds a number that float16 cannot", hint="the training has diverged: lower `--lr`"
        )
    if tensor.ndim != 2 or len(tensor) == 1 or tensor.shape[1] % GROUP:
        return [(name, half)]
    groups = np.asarray(tensor, dtype=np.float32).reshape(len(tensor), -1, GROUP)
    scales = (np.abs(groups).max(-1) / 127).astype("<f2")
    wide = scales.astype(np.float32)[..., None]
    codes = np.rint(np.divide(groups, wide, out=np.zeros_like(groups), where=wide > 0))
    return [(name, codes.clip(-127, 127).astype(np.int8).reshape(tensor.shape)), (name + SCALES, scales)]
