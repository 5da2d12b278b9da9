"""Matrices in 8 bits: what is written is what is read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from gguf import GGMLQuantizationType
from gguf.quants import dequantize

from offramp.errors import WeightsError
from offramp.weights import BlockSource, SafetensorsWeights
from offramp.weights.eight_bits import GROUP, EightBitsFile, eight_bits_bytes


def written(folder: Path, tensors: dict[str, np.ndarray]) -> EightBitsFile:
    path = folder / "w.safetensors"
    path.write_bytes(eight_bits_bytes(tensors))
    return EightBitsFile(path)


def test_matrices_take_a_byte_a_number_and_are_off_by_half_a_step_at_most(tmp_path: Path) -> None:
    matrix = np.random.default_rng(0).normal(0, 1, (6, 64)).astype(np.float32)
    matrix[2, :32] = 0
    tensors = written(tmp_path, {"w": matrix})
    assert tensors.shapes == {"w": (6, 64)}
    step = np.repeat(np.abs(matrix.reshape(6, -1, GROUP)).max(-1) / 127, GROUP, axis=1)
    assert (np.abs(tensors.load("w") - matrix) <= 0.51 * step + 1e-7).all()
    assert (tmp_path / "w.safetensors").stat().st_size < 6 * 64 * 1.1 + 200


def test_what_was_read_is_written_as_it_was(tmp_path: Path) -> None:
    first = written(tmp_path, {"w": np.random.default_rng(1).normal(0, 1, (8, 96))}).load("w")
    assert (written(tmp_path, {"w": first}).load("w") == first).all()


def test_vectors_single_rows_and_odd_widths_are_float16(tmp_path: Path) -> None:
    pick = np.random.default_rng(2)
    tensors = {"norm": pick.normal(0, 1, 32), "row": pick.normal(0, 1, (1, 32)), "odd": pick.normal(0, 1, (4, 33))}
    read = written(tmp_path, tensors)
    for name, tensor in tensors.items():
        assert (read.load(name) == tensor.astype(np.float16)).all()


def test_numbers_that_float16_cannot_hold_are_refused() -> None:
    with pytest.raises(WeightsError) as error:
        eight_bits_bytes({"w": np.full((2, 32), 1e6)})
    assert error.value.message == "tensor `w` holds a number that float16 cannot"


def test_codes_without_their_scales_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(eight_bits_bytes({"w": np.ones((2, 32))}).replace(b'"w.scales"', b'"w.scaled"'))
    with pytest.raises(WeightsError) as error:
        EightBitsFile(path)
    assert "needs a float16 tensor `w.scales` with one scale for every 32 of a row" in error.value.message


def test_a_folder_in_8_bits_is_a_source_of_q8_0_blocks(tmp_path: Path) -> None:
    matrix = np.random.default_rng(3).normal(0, 1, (6, 64)).astype(np.float32)
    (tmp_path / "model.safetensors").write_bytes(eight_bits_bytes({"w": matrix, "norm": matrix[0]}))
    weights = SafetensorsWeights(tmp_path)
    assert isinstance(weights, BlockSource)
    assert weights.shapes() == {"w": (6, 64), "norm": (64,)}
    assert (weights.block_kind("w"), weights.block_kind("norm")) == ("Q8_0", None)
    kind, rows = weights.raw("w")
    assert (dequantize(rows, GGMLQuantizationType[kind]) == weights.load("w")).all()
    with pytest.raises(WeightsError, match=r"tensor `norm` in .* is no quantised matrix"):
        weights.raw("norm")
