"""Weights in safetensors files, single or sharded (https://github.com/huggingface/safetensors, format section)."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from offramp.errors import WeightsError
from offramp.weights.source import Array, as_tensor, map_file, no_such_tensor

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
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


class SafetensorsWeights:
    """The weights of a folder in Hugging Face form: `model.safetensors`, or the shards its index names.

    Raises:
        WeightsError: no weight file in the folder, or a file or index that is corrupt.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        if (folder / INDEX).is_file():
            self._files = _shards(folder)
        elif (folder / SINGLE).is_file():
            self._files = (SafetensorsFile(folder / SINGLE),)
        else:
            raise WeightsError(
                f"`{folder}` holds no weights; looked for `{SINGLE}` and `{INDEX}`",
                hint="save the model with `save_pretrained(folder, safe_serialization=True)`",
            )
        self._home: dict[str, SafetensorsFile] = {}
        for file in self._files:
            for name in file.entries:
                if name in self._home:
                    raise WeightsError(f"tensor `{name}` is in both `{self._home[name].path}` and `{file.path}`")
                self._home[name] = file

    @property
    def files(self) -> tuple[Path, ...]:
        """The weight files, by name."""
        return tuple(file.path for file in self._files)

    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Name -> shape of every tensor."""
        return {name: file.entries[name].shape for name, file in self._home.items()}

    def load(self, name: str) -> Array:
        """The tensor; see `WeightSource.load`."""
        if name not in self._home:
            raise no_such_tensor(name, self.folder)
        return self._home[name].load(name)


def _shards(folder: Path) -> tuple[SafetensorsFile, ...]:
    index = folder / INDEX
    try:
        weight_map = json.loads(index.read_bytes())["weight_map"]
        names = {str(name): str(file) for name, file in weight_map.items()}
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise WeightsError(f"`{index}` is not an index of safetensors files: no readable `weight_map`") from error
    files: dict[str, SafetensorsFile] = {}
    for name in sorted(set(names.values())):
        if Path(name).name != name:
            raise WeightsError(f"`{index}` names `{name}`; a shard must lie beside its index")
        files[name] = SafetensorsFile(folder / name)
    for tensor, name in names.items():
        if tensor not in files[name].entries:
            raise WeightsError(f"`{index}` says that tensor `{tensor}` is in `{name}`, which does not hold it")
    return tuple(files.values())


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
