"""Safetensors files (https://github.com/huggingface/safetensors, format section)."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from offramp.errors import WeightsError
from offramp.weights.source import Array, as_tensor, map_file

MAX_HEADER_BYTES = 100_000_000

ITEM_BYTES = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2"), 1),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 2),
    **dict.fromkeys(("U32", "I32", "F32"), 4),
    **dict.fromkeys(("U64", "I64", "F64"), 8),
}
"""Bytes per element of the types that a header may name; only F32, F16 and BF16 can be loaded."""


class Entry(NamedTuple):
    """One tensor of a header; `start` and `end` are byte offsets in the file."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


class SafetensorsFile:
    """One mapped file with a validated header.

    Raises:
        WeightsError: the file is truncated or corrupt, or its header describes impossible tensors.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.data = map_file(path)
        self.entries = _entries(path, self.data)

    def load(self, name: str) -> Array:
        """The tensor; see `WeightSource.load`."""
        entry = self.entries[name]
        data = self.data[entry.start : entry.end]
        if entry.dtype == "BF16":
            wide: Array = np.left_shift(np.frombuffer(data, dtype="<u2"), 16, dtype=np.uint32)
            return wide.view(np.float32).reshape(entry.shape)
        if entry.dtype not in ("F32", "F16"):
            raise WeightsError(
                f"tensor `{name}` in `{self.path}` is stored as {entry.dtype}; F32, F16 and BF16 can be read"
            )
        return as_tensor(data, "<f4" if entry.dtype == "F32" else "<f2", entry.shape)


def _entries(path: Path, data: npt.NDArray[np.uint8]) -> dict[str, Entry]:
    """The header's tensors, in file order; checked against the file's size and one another."""
    size = int.from_bytes(data[:8].tobytes(), "little")
    start = 8 + size
    if len(data) < 8 or size > MAX_HEADER_BYTES or start > len(data):
        raise WeightsError(f"`{path}` is truncated or not a safetensors file: its header does not fit in it")
    try:
        header = json.loads(data[8:start].tobytes())
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"`{path}` is corrupt: its header is not JSON") from error
    if not isinstance(header, dict):
        raise WeightsError(f"`{path}` is corrupt: its header is not a JSON object")
    header.pop("__metadata__", None)
    entries = {name: _entry(path, name, fields, start, len(data)) for name, fields in header.items()}
    end, before = start, ""
    for name, entry in sorted(entries.items(), key=lambda item: item[1][2:]):
        if entry.start < end:
            raise WeightsError(f"`{path}` is corrupt: tensors `{before}` and `{name}` overlap")
        end, before = entry.end, name
    return entries


def _entry(path: Path, name: str, fields: Any, data_start: int, file_size: int) -> Entry:
    try:
        dtype, shape, (begin, end) = fields["dtype"], tuple(fields["shape"]), fields["data_offsets"]
        item_bytes = ITEM_BYTES.get(dtype, 0)
        numbers = all(type(n) is int and n >= 0 for n in (*shape, begin, end))
    except (LookupError, TypeError, ValueError) as error:
        raise WeightsError(f"`{path}` is corrupt: tensor `{name}` lacks a dtype, shape or data_offsets") from error
    if not item_bytes:
        raise WeightsError(f"tensor `{name}` in `{path}` has unknown dtype {dtype!r}")
    if not numbers:
        raise WeightsError(f"`{path}` is corrupt: tensor `{name}` has a shape or offset that is not a whole number")
    if begin > end or data_start + end > file_size:
        raise WeightsError(
            f"`{path}` is truncated or corrupt: tensor `{name}` lies at bytes {data_start + begin} to "
            f"{data_start + end} of {file_size}"
        )
    if end - begin != math.prod(shape) * item_bytes:
        raise WeightsError(
            f"`{path}` is corrupt: tensor `{name}` of shape {list(shape)} and dtype {dtype} needs "
            f"{math.prod(shape) * item_bytes} bytes and has {end - begin}"
        )
    return Entry(dtype, shape, data_start + begin, data_start + end)


def safetensors_bytes(tensors: Mapping[str, Array]) -> bytes:
    """The file that holds `tensors`, of float32, float16 or int8."""
    kinds = {"f4": "F32", "f2": "F16", "i1": "I8"}
    header: dict[str, Any] = {}
    parts: list[bytes] = []
    end = 0
    for name, array in tensors.items():
        kind = kinds[array.dtype.str[1:]]
        header[name] = {"dtype": kind, "shape": list(array.shape), "data_offsets": [end, end + array.nbytes]}
        parts.append(array.tobytes())
        end += array.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return b"".join((len(text).to_bytes(8, "little"), text, *parts))
