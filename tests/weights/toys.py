"""Small weight files with known contents."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from gguf import GGMLQuantizationType, GGUFWriter

Array = npt.NDArray[Any]


def write_safetensors(path: Path, header: Mapping[str, Any], data: bytes) -> Path:
    """A file with exactly this header, right or wrong."""
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def entry(dtype: str, shape: list[int], begin: int, end: int) -> dict[str, Any]:
    """One tensor of a header."""
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def write_gguf(
    path: Path,
    tensors: Mapping[str, Array],
    *,
    arch: str = "llama",
    numbers: Mapping[str, int | float] | None = None,
    lists: Mapping[str, list[Any]] | None = None,
    texts: Mapping[str, str] | None = None,
    quantized: Mapping[str, GGMLQuantizationType] | None = None,
) -> Path:
    """A GGUF file; `quantized` names the tensors that are given as raw blocks."""
    writer = GGUFWriter(str(path), arch)
    for key, number in (numbers or {}).items():
        writer.add_uint32(key, number) if isinstance(number, int) else writer.add_float32(key, number)
    for key, values in (lists or {}).items():
        writer.add_array(key, values)
    for key, text in (texts or {}).items():
        writer.add_string(key, text)
    for name, array in tensors.items():
        writer.add_tensor(name, array, raw_dtype=(quantized or {}).get(name))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def permuted(rows: Array, num_heads: int) -> Array:
    """The order in which llama.cpp's converter stores the Q and K rows of Llama models: halves interleaved."""
    per_head = rows.reshape(num_heads, -1, *rows.shape[1:])
    half = per_head.shape[1] // 2
    order = [index for pair in zip(range(half), range(half, 2 * half), strict=True) for index in pair]
    return np.ascontiguousarray(per_head[:, order].reshape(rows.shape))
