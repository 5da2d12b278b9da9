"""What is written is what is read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from offramp.errors import PackError
from offramp.exits.tensors import GROUP, PackTensors, pack_tensors


def written(folder: Path, tensors: dict[str, np.ndarray]) -> PackTensors:
    path = folder / "exits.safetensors"
    path.write_bytes(pack_tensors(tensors))
    return PackTensors(path)


def test_matrices_take_a_byte_a_number_and_are_off_by_half_a_step_at_most(tmp_path: Path) -> None:
    matrix = np.random.default_rng(0).normal(0, 1, (6, 64)).astype(np.float32)
    matrix[2, :32] = 0
    tensors = written(tmp_path, {"w": matrix})
    assert tensors.shapes == {"w": (6, 64)}
    step = np.repeat(np.abs(matrix.reshape(6, -1, GROUP)).max(-1) / 127, GROUP, axis=1)
    assert (np.abs(tensors.load("w") - matrix) <= 0.51 * step + 1e-7).all()
    assert (tmp_path / "exits.safetensors").stat().st_size < 6 * 64 * 1.1 + 200


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
    with pytest.raises(PackError) as error:
        pack_tensors({"w": np.full((2, 32), 1e6)})
    assert error.value.message == "tensor `w` holds a number that float16 cannot"


def test_codes_without_their_scales_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "exits.safetensors"
    path.write_bytes(pack_tensors({"w": np.ones((2, 32))}).replace(b'"w.scales"', b'"w.scaled"'))
    with pytest.raises(PackError) as error:
        PackTensors(path)
    assert "needs a tensor `w.scales` with one scale for every 32 of a row" in error.value.message
