"""The header of a GGUF file: metadata and tensor descriptions (llama.cpp, docs/gguf.md; versions 2 and 3).

Reads with `struct` over the mapped bytes: a vocabulary of 50k tokens takes tens of milliseconds.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from offramp.errors import WeightsError

MAGIC = b"GGUF"
VERSIONS = (2, 3)
DEFAULT_ALIGNMENT = 32
MAX_DIMS = 4

STRING, ARRAY = 8, 9
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
"""Metadata value type -> `struct` code."""


class TensorInfo(NamedTuple):
    """A tensor as the header describes it: `shape` slowest axis first, `offset` in bytes from the file's start."""

    shape: tuple[int, ...]
    type_id: int
    offset: int


class Header(NamedTuple):
    """Metadata as plain Python values, and the tensors in file order."""

    metadata: dict[str, Any]
    tensors: dict[str, TensorInfo]


class _Cut(Exception):
    """The header asks for more than the file holds, or for something the format does not have."""


def read_header(path: Path, data: npt.NDArray[np.uint8]) -> Header:
    """Parse the header of a mapped file.

    Raises:
        WeightsError: not a GGUF file, of another version or byte order, truncated or corrupt.
    """
    if data[:4].tobytes() != MAGIC:
        raise WeightsError(f"`{path}` is not a GGUF file")
    version = int.from_bytes(data[4:8].tobytes(), "little")
    if version not in VERSIONS:
        raise WeightsError(f"`{path}` is GGUF version {version}; little-endian versions 2 and 3 can be read")
    try:
        return _Reader(data.data).header()
    except struct.error as error:
        raise WeightsError(f"`{path}` is truncated: its header ends early") from error
    except (_Cut, UnicodeDecodeError) as error:
        reason = error if isinstance(error, _Cut) else "a string is not UTF-8"
        raise WeightsError(f"`{path}` is corrupt: {reason}") from error


class _Reader:
    """A cursor over the header's bytes."""

    def __init__(self, view: memoryview) -> None:
        self.view = view
        self.at = len(MAGIC) + 4

    def header(self) -> Header:
        num_tensors, num_values = self.scalar("Q"), self.scalar("Q")
        metadata: dict[str, Any] = {}
        for _ in range(num_values):
            key = self.string()
            if key in metadata:
                raise _Cut(f"metadata key `{key}` is there twice")
            metadata[key] = self.value(self.scalar("I"))
        tensors: dict[str, TensorInfo] = {}
        for _ in range(num_tensors):
            name = self.string()
            if name in tensors:
                raise _Cut(f"tensor `{name}` is there twice")
            tensors[name] = self.tensor(name)
        alignment = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
        if type(alignment) is not int or alignment < 1 or alignment & (alignment - 1):
            raise _Cut(f"`general.alignment` is {alignment!r}, not a power of two")
        start = -(-self.at // alignment) * alignment
        return Header(metadata, {name: t._replace(offset=start + t.offset) for name, t in tensors.items()})

    def scalar(self, code: str) -> Any:
        (value,) = struct.unpack_from("<" + code, self.view, self.at)
        self.at += struct.calcsize("<" + code)
        return value

    def string(self) -> str:
        length = self.scalar("Q")
        end = self.at + length
        if end > len(self.view):
            raise _Cut(f"a string of {length} bytes runs past the end of the file")
        text = str(self.view[self.at : end], "utf-8")
        self.at = end
        return text

    def value(self, kind: int) -> Any:
        if kind == STRING:
            return self.string()
        if kind == ARRAY:
            return self.array()
        if kind not in SCALARS:
            raise _Cut(f"unknown metadata type {kind}")
        return self.scalar(SCALARS[kind])

    def array(self) -> list[Any]:
        kind, length = self.scalar("I"), self.scalar("Q")
        if kind != STRING and kind not in SCALARS:
            raise _Cut(f"unknown type {kind} in an array")
        item = 8 if kind == STRING else struct.calcsize("<" + SCALARS[kind])
        if length * item > len(self.view) - self.at:
            raise _Cut(f"an array of {length} values runs past the end of the file")
        if kind == STRING:
            return [self.string() for _ in range(length)]
        values = struct.unpack_from(f"<{length}{SCALARS[kind]}", self.view, self.at)
        self.at += length * item
        return list(values)

    def tensor(self, name: str) -> TensorInfo:
        num_dims = self.scalar("I")
        if num_dims > MAX_DIMS:
            raise _Cut(f"tensor `{name}` has {num_dims} dimensions")
        shape = tuple(self.scalar("Q") for _ in range(num_dims))[::-1]
        return TensorInfo(shape, self.scalar("I"), self.scalar("Q"))
