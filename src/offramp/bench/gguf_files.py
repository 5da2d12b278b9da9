"""GGUF files for llama.cpp and its kin: one set of dequantised weights, stored in each precision that is asked for.

Matrices take the precision, except that under 4 bits the embedding keeps 8 (as `llama-quantize` has it for shapes that
its 6-bit type does not fit); vectors stay float32. Files are kept in the cache folder and written once.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from offramp.files import draft_of
from offramp.models import cache_dir

KINDS = {"q4_0": "Q4_0", "q4_1": "Q4_1", "q8_0": "Q8_0", "f16": "F16", "f32": "F32"}
EMBEDDINGS = ("token_embd.weight", "output.weight")

Report = Callable[[str], None]


def requantized(source: Path, identity: str, precision: str, report: Report = lambda text: None) -> Path:
    """The model's file in `precision` (a key of `KINDS`), written if it is not there. `identity` tells models apart."""
    path = cache_dir() / "bench" / f"{identity[:16]}-{precision}.gguf"
    if not path.is_file():
        report(f"writing {path.name}")
        path.parent.mkdir(parents=True, exist_ok=True)
        with draft_of(path) as draft:
            _write(source, draft, KINDS[precision])
    return path


def _write(source: Path, target: Path, kind_name: str) -> None:
    from gguf import GGMLQuantizationType, GGUFReader, GGUFWriter, LlamaFileType
    from gguf.quants import dequantize, quantize

    reader = GGUFReader(source)
    writer = GGUFWriter(target, _value(reader.fields["general.architecture"]))
    _copy_metadata(reader, writer)
    writer.add_file_type(LlamaFileType["ALL_F32" if kind_name == "F32" else f"MOSTLY_{kind_name}"])
    kind = GGMLQuantizationType[kind_name]
    for tensor in reader.tensors:
        values = np.asarray(dequantize(tensor.data, tensor.tensor_type), dtype=np.float32)
        wanted = kind
        if values.ndim < 2:
            wanted = GGMLQuantizationType.F32
        elif kind_name.startswith("Q4") and tensor.name in EMBEDDINGS:
            wanted = GGMLQuantizationType.Q8_0
        writer.add_tensor(tensor.name, quantize(values, wanted), raw_dtype=wanted)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _copy_metadata(reader: Any, writer: Any) -> None:
    """Everything but what the writer sets itself and what names the old precision."""
    from gguf import GGUFValueType

    for name, field in reader.fields.items():
        if name.startswith("GGUF.") or name in ("general.architecture", "general.file_type"):
            continue
        inner = field.types[-1] if field.types[0] == GGUFValueType.ARRAY else None
        writer.add_key_value(name, _value(field), field.types[0], sub_type=inner)


def _value(field: Any) -> Any:
    return field.contents()
