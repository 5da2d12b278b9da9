"""What a set of weights looks like to those who read it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from offramp.errors import WeightsError

Array = npt.NDArray[Any]

SAMPLES = 64
SAMPLE_BYTES = 64 * 1024


@runtime_checkable
class WeightSource(Protocol):
    """Named tensors on disk, none of which is read before it is asked for."""

    @property
    def files(self) -> tuple[Path, ...]:
        """The files the tensors lie in, in a fixed order."""
        ...

    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Hugging Face name -> shape, e.g. `model.layers.0.self_attn.q_proj.weight` -> (rows out, columns in)."""
        ...

    def load(self, name: str) -> Array:
        """The tensor as float32, or as float16 where it is stored so.

        The array may be a read-only view of the file; it is C-contiguous and aligned.

        Raises:
            WeightsError: no such tensor, or one of a type that cannot be read.
        """
        ...


class Blocks(NamedTuple):
    """A quantised matrix as it is stored: `kind` as GGUF calls it (`Q4_1`), and its rows, (rows, bytes) uint8."""

    kind: str
    rows: npt.NDArray[np.uint8]


@runtime_checkable
class BlockSource(WeightSource, Protocol):
    """A `WeightSource` whose quantised tensors can be had without dequantising them."""

    def block_kind(self, name: str) -> str | None:
        """How a matrix is quantised, e.g. `Q4_1`; None where it holds plain numbers. Reads nothing of the tensor."""
        ...

    def raw(self, name: str) -> Blocks:
        """The stored blocks of a quantised matrix, rows in their Hugging Face order.

        Raises:
            WeightsError: no such tensor, or one that is no quantised matrix.
        """
        ...


def no_such_tensor(name: str, where: Path) -> WeightsError:
    """The error for a name that a source does not have."""
    return WeightsError(f"there is no tensor `{name}` in `{where}`")


def map_file(path: Path) -> npt.NDArray[np.uint8]:
    """The file's bytes as a read-only memory map, (size,) uint8.

    Raises:
        WeightsError: the file is missing, empty or unreadable.
    """
    try:
        return np.memmap(path, dtype=np.uint8, mode="r")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "the file is empty"
        raise WeightsError(f"cannot read `{path}`: {reason}") from error


def as_tensor(data: npt.NDArray[np.uint8], dtype: npt.DTypeLike, shape: tuple[int, ...]) -> Array:
    """`data` seen as `dtype` and `shape`; copied only where the bytes are not aligned for the type."""
    return np.require(np.frombuffer(data, dtype=dtype).reshape(shape), requirements=["C", "A"])


def fingerprint(paths: Iterable[Path]) -> str:
    """A SHA-256 that tells checkpoints apart without reading them whole.

    For each file: its size and 64 evenly spaced blocks of 64 KiB, so files of up to 4 MiB are read in full.
    """
    digest = hashlib.sha256()
    for path in paths:
        data = map_file(path)
        digest.update(len(data).to_bytes(8, "little"))
        last = max(0, len(data) - SAMPLE_BYTES)
        step = max(SAMPLE_BYTES, -(-last // (SAMPLES - 1)))
        for start in (*range(0, last, step), last):
            digest.update(data[start : start + SAMPLE_BYTES].tobytes())
    return digest.hexdigest()
