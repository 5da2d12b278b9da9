"""A model with matrices in 8 bits, which others do not read, as a folder of plain numbers: the same, dequantised."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np

from offramp.bench.gguf_files import Report
from offramp.weights.safetensors import safetensors_bytes
from offramp.weights.source import BlockSource, WeightSource


def is_plain(weights: WeightSource) -> bool:
    """Whether no matrix is quantised."""
    return not isinstance(weights, BlockSource) or all(weights.block_kind(name) is None for name in weights.shapes())


def plain_folder(source: Path, weights: WeightSource, folder: Path, report: Report) -> Path:
    """`folder`, with the configuration of `source` and `weights` in float32; written if it is not there."""
    if not folder.is_dir():
        report(f"writing {folder.name}")
        draft = folder.with_name(f"{folder.name}.{os.getpid()}")
        try:
            shutil.copytree(source, draft, ignore=shutil.ignore_patterns("*.safetensors*"))
            arrays = {name: np.asarray(weights.load(name), dtype=np.float32) for name in weights.shapes()}
            (draft / "model.safetensors").write_bytes(safetensors_bytes(arrays))
            draft.rename(folder)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    return folder
