"""Packed matrices: sizes, memory, columns taken out of them."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest

from offramp import _native
from offramp.executors.native.layout import (
    ALIGN,
    HUGE_PAGE,
    PackedMatrix,
    WeightType,
    allocate,
    matrix_bytes,
    take_columns,
)
from offramp.executors.native.pack import pack_array, pack_pairs
from tests.executors.native import unpack

KINDS: tuple[WeightType, ...] = get_args(WeightType)


def numbers(n: int, k: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, k)).astype(np.float32)


@pytest.mark.parametrize("kind", KINDS)
def test_sizes_are_those_of_the_core(kind: WeightType) -> None:
    for n in (1, 15, 16, 17, 96):
        for k in (1, 31, 32, 33, 64, 576):
            assert matrix_bytes(kind, n, k) == _native.matrix_bytes(kind, n, k)


@pytest.mark.parametrize("size", [1, 1000, HUGE_PAGE - 1, HUGE_PAGE, 3 * HUGE_PAGE + 5])
def test_memory_is_aligned_and_zero(size: int) -> None:
    memory = allocate(size)
    assert len(memory) == size and memory.ctypes.data % ALIGN == 0 and not memory.any()
    memory[-1] = 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("k", [31, 64])
def test_columns_taken_out_are_the_same_bits(kind: WeightType, k: int) -> None:
    matrix = pack_array(kind, numbers(40, k))
    columns = [39, 0, 7, 16, 15, *range(20, 33)]
    taken = take_columns((matrix, columns))
    assert (taken.type, taken.n, taken.k) == (kind, len(columns), k)
    assert np.array_equal(unpack(taken), unpack(matrix)[columns])
    assert taken.data.ctypes.data % ALIGN == 0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n", [16, 21])
def test_all_columns_in_order_are_the_matrix_padding_included(kind: WeightType, n: int) -> None:
    matrix = pack_array(kind, numbers(n, 70))
    assert np.array_equal(take_columns((matrix, range(n))).data, matrix.data)


@pytest.mark.parametrize("kind", KINDS)
def test_columns_of_two_matrices_follow_each_other(kind: WeightType) -> None:
    first, second = pack_array(kind, numbers(20, 40)), pack_array(kind, numbers(1, 40, seed=1))
    both = take_columns((first, [3, 19]), (second, [0]))
    assert np.array_equal(unpack(both), np.concatenate([unpack(first)[[3, 19]], unpack(second)]))


def test_panels_of_pairs_alternate() -> None:
    first, second = numbers(20, 8), numbers(20, 8, seed=1)
    panels = unpack(pack_pairs("f32", first, second)).reshape(2, 2, 16, 8)
    for number, array in enumerate((first, second)):
        assert np.array_equal(panels[:, number].reshape(32, 8)[:20], array)
        assert not panels[:, number].reshape(32, 8)[20:].any()


def test_rounding_is_to_the_nearest_half_step() -> None:
    array = numbers(16, 32)
    packed = {kind: PackedMatrix(kind, 16, 32, pack_array(kind, array).data) for kind in KINDS}
    error = {kind: np.abs(unpack(matrix) - array).max(-1) for kind, matrix in packed.items()}
    assert not error["f32"].any()
    assert np.all(error["f16"] <= 2.0**-11 * np.abs(array).max(-1))
    assert np.all(error["bf16"] <= 2.0**-8 * np.abs(array).max(-1))
    assert np.all(error["i8"] <= 0.51 / 127 * np.abs(array).max(-1))
    assert np.all(error["i4m"] <= 0.51 / 15 * np.ptp(array, axis=-1))
    assert np.all(error["i4"] <= 1.01 / 8 * np.abs(array).max(-1))
