"""Packing: what is rounded and by how much, what is kept bit for bit, where rows go, and what is refused."""

from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt
import pytest
from gguf import GGMLQuantizationType
from gguf.quants import dequantize, quantize

from offramp import _native

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]

EXACT = {"Q8_0": "i8", "Q4_0": "i4", "Q4_1": "i4m"}


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(11)


def empty(kind: str, n: int, k: int) -> Bytes:
    return np.full(_native.matrix_bytes(kind, n, k), 0xEE, dtype=np.uint8)


def round_trip(kind: str, rows: Floats) -> Floats:
    target = empty(kind, *rows.shape)
    _native.pack_f32(kind, rows, target, len(rows), 0, 1)
    return _native.unpack(kind, target, *rows.shape)


@pytest.mark.parametrize(("n", "k"), [(1, 1), (15, 31), (17, 33), (48, 576)])
def test_floats(rng: np.random.Generator, n: int, k: int) -> None:
    rows = rng.standard_normal((n, k)).astype(np.float32)
    assert np.array_equal(round_trip("f32", rows), rows)
    assert np.array_equal(round_trip("f16", rows), rows.astype(np.float16).astype(np.float32))
    bits = rows.view(np.uint32)
    nearest = ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16 << 16).view(np.float32)
    assert np.array_equal(round_trip("bf16", rows), nearest)


@pytest.mark.parametrize("k", [1, 31, 32, 33, 576])
def test_int8_is_within_half_a_step(rng: np.random.Generator, k: int) -> None:
    rows = rng.standard_normal((17, k)).astype(np.float32)
    groups = np.pad(rows, ((0, 0), (0, -k % 32))).reshape(17, -1, 32)
    step = np.abs(groups).max(axis=2, keepdims=True) / 127 * (1 + 2**-10)
    error = np.pad(round_trip("i8", rows), ((0, 0), (0, -k % 32))).reshape(groups.shape) - groups
    assert np.all(np.abs(error) <= step * 0.56)  # the largest weight may lie 127 * 2^-11 of a step beyond the last


def relative_error(found: Floats, exact: Floats) -> float:
    """Root mean square, of weights of that of `exact`."""
    return float(np.sqrt(np.mean((found - exact) ** 2) / np.mean(exact**2)))


def test_int8_is_half_a_percent_off(rng: np.random.Generator) -> None:
    rows = rng.standard_normal((64, 576)).astype(np.float32)
    assert relative_error(round_trip("i8", rows), rows) < 0.006


@pytest.mark.parametrize("size", [1e-7, 3e-6, 1e-5, 1e-3])
def test_scales_that_are_subnormal_in_f16(rng: np.random.Generator, size: float) -> None:
    """Their rounding is coarse; no weight is cut off because of it."""
    rows = (rng.uniform(-1, 1, (16, 64)) * size).astype(np.float32)
    for kind, steps in (("i8", 127), ("i4", 8), ("i4m", 15)):
        worst = np.abs(round_trip(kind, rows) - rows).max()
        assert worst <= max(2 * size / steps, 2.0**-24)


def test_int4_with_minima_is_the_better(rng: np.random.Generator) -> None:
    """Mean squared errors on normal weights; what GGUF's own rules give is the measure."""
    rows = rng.standard_normal((64, 576)).astype(np.float32)
    error = {kind: np.mean((round_trip(kind, rows) - rows) ** 2) for kind in ("i4", "i4m")}
    blocks = {kind: quantize(rows, kind) for kind in (GGMLQuantizationType.Q4_0, GGMLQuantizationType.Q4_1)}
    theirs = {kind: np.mean((dequantize(data, kind) - rows) ** 2) for kind, data in blocks.items()}
    assert error["i4"] <= theirs[GGMLQuantizationType.Q4_0] * 1.01
    assert error["i4m"] <= theirs[GGMLQuantizationType.Q4_1] * 0.9
    assert error["i4m"] < 0.8 * error["i4"]


def test_weights_that_four_bits_hold_come_back(rng: np.random.Generator) -> None:
    rows = (rng.integers(0, 16, (32, 96)) * 0.25 - 1.5).astype(np.float32)
    rows.reshape(32, 3, 32)[..., 0], rows.reshape(32, 3, 32)[..., 9] = -1.5, 2.25
    assert np.array_equal(round_trip("i4m", rows), rows)


def test_a_group_of_zeros_and_one_that_is_not_finite(rng: np.random.Generator) -> None:
    rows = rng.standard_normal((16, 96)).astype(np.float32)
    rows[2, 32:64], rows[5, 70], rows[6, 0] = 0, np.nan, -np.inf
    for kind in ("i8", "i4", "i4m"):
        got = round_trip(kind, rows)
        assert not got[2, 32:64].any()
        assert np.isnan(got[5, 64:]).all() and np.isnan(got[6, :32]).all()
        assert np.isfinite(np.delete(got, [5, 6], axis=0)).all()


@pytest.mark.parametrize(("name", "kind"), EXACT.items())
@pytest.mark.parametrize("n", [1, 16, 37])
def test_blocks_keep_their_weights(rng: np.random.Generator, name: str, kind: str, n: int) -> None:
    block = GGMLQuantizationType[name]
    rows = quantize(rng.standard_normal((n, 96)).astype(np.float32), block)
    target = empty(kind, n, 96)
    _native.pack_blocks(name, rows, 96, kind, target, n, 0, 1)
    assert np.array_equal(_native.unpack(kind, target, n, 96), dequantize(rows, block))


def test_blocks_of_q4_k_lose_the_rounding_of_their_scales(rng: np.random.Generator) -> None:
    n, k = 20, 512
    rows = rng.integers(0, 256, (n, k // 256, 144)).astype(np.uint8)
    rows[..., :4] = rng.uniform(0.001, 0.02, (n, k // 256, 2)).astype(np.float16).view(np.uint8)
    rows = rows.reshape(n, -1)
    target = empty("i4m", n, k)
    _native.pack_blocks("Q4_K", rows, k, "i4m", target, n, 0, 1)
    exact = dequantize(rows, GGMLQuantizationType.Q4_K)
    got = _native.unpack("i4m", target, n, k)
    groups = exact.reshape(n, -1, 32)
    reach = np.abs(groups).max(axis=2, keepdims=True) + np.ptp(groups, axis=2, keepdims=True)
    assert np.all(np.abs(got.reshape(groups.shape) - groups) <= 2.0**-10 * reach)
    assert relative_error(got, exact) < 5e-4


def q4_k_blocks(rows: Floats) -> Bytes:
    """Rows as Q4_K by its plainest rule: minimum and range of every 32 weights, in 6 bits, scaled for every 256."""
    groups = rows.reshape(len(rows), -1, 8, 32)
    low = np.minimum(groups.min(axis=3), 0)
    sizes = np.stack([(np.maximum(groups.max(axis=3), 0) - low) / 15, -low], axis=2)  # of scales and minima
    units = (sizes.max(axis=3) / 63).astype(np.float16)
    scale, minimum = np.moveaxis(np.rint(sizes / units[..., None]).astype(np.uint8), 2, 0)
    step, shift = (units[..., i, None].astype(np.float32) * part for i, part in enumerate((scale, minimum)))
    codes = np.clip(np.rint((groups + shift[..., None]) / step[..., None]), 0, 15).astype(np.uint8)
    high = (scale[..., 4:] & 15) | (minimum[..., 4:] & 15) << 4
    six_bits = [part[..., :4] | part[..., 4:] >> 4 << 6 for part in (scale, minimum)]
    nibbles = (codes[:, :, ::2] | codes[:, :, 1::2] << 4).reshape(*scale.shape[:2], 128)
    return np.concatenate([units.view(np.uint8), *six_bits, high, nibbles], axis=2).reshape(len(rows), -1)


def test_normal_weights_in_q4_k_lose_less_than_a_thousandth_by_repacking(rng: np.random.Generator) -> None:
    rows = rng.standard_normal((64, 1536)).astype(np.float32)
    blocks, target = q4_k_blocks(rows), empty("i4m", 64, 1536)
    exact = dequantize(blocks, GGMLQuantizationType.Q4_K)
    assert 0.05 < relative_error(exact, rows) < 0.1
    _native.pack_blocks("Q4_K", blocks, 1536, "i4m", target, 64, 0, 1)
    assert 0 < relative_error(_native.unpack("i4m", target, 64, 1536), exact) < 1e-3


@pytest.mark.parametrize("kind", ["f32", "bf16", "i8", "i4m"])
def test_parts_follow_each_other_or_alternate(rng: np.random.Generator, kind: str) -> None:
    first, second = (rng.standard_normal((n, 40)).astype(np.float32) for n in (32, 20))
    held = {id(part): round_trip(kind, part) for part in (first, second)}
    for offset, step in ((2, 1), (1, 2)):
        target = empty(kind, 64, 40)
        _native.pack_f32(kind, first, target, 64, 0, step)
        _native.pack_f32(kind, second, target, 64, offset, step)
        got = _native.unpack(kind, target, 64, 40).reshape(4, 16, 40)
        assert np.array_equal(np.concatenate(list(got[::step][:2])), held[id(first)])
        rest = np.concatenate(list(got[offset::step][:2]))
        assert np.array_equal(rest[:20], held[id(second)])
        assert not rest[20:].any()  # padding weighs nothing


def test_what_does_not_fit_is_refused(rng: np.random.Generator) -> None:
    rows = rng.standard_normal((20, 64)).astype(np.float32)
    blocks = quantize(rows, GGMLQuantizationType.Q8_0)
    good = empty("i8", 32, 64)
    before = good.copy()
    for first, step in itertools.chain([(1, 1), (-1, 1), (2, 1), (0, 2), (0, 0), (0, -1), (0, 2**62), (2**62, 1)]):
        with pytest.raises(ValueError, match="go beyond the 2 panels"):
            _native.pack_f32("i8", rows, good, 32, first, step)
    for bad in (
        lambda: _native.pack_f32("i8", rows, good[:-1].copy(), 32, 0, 1),
        lambda: _native.pack_f32("i8", rows[:0].copy(), good, 32, 0, 1),
        lambda: _native.pack_f32("i5", rows, good, 32, 0, 1),
        lambda: _native.pack_blocks("Q8_0", blocks, 64, "i4", good, 32, 0, 1),
        lambda: _native.pack_blocks("Q5_0", blocks, 64, "i8", good, 32, 0, 1),
        lambda: _native.pack_blocks("Q8_0", blocks, 60, "i8", good, 32, 0, 1),
        lambda: _native.pack_blocks("Q8_0", blocks, 96, "i8", good, 32, 0, 1),
        lambda: _native.unpack("i8", good, 33, 64),
        lambda: _native.unpack("i8", good, 0, 64),
        lambda: _native.matrix_bytes("f32", 2**31 - 1, 2**31 - 1),
        lambda: _native.matrix_bytes("f32", -1, 4),
    ):
        with pytest.raises(ValueError):
            bad()
    with pytest.raises(TypeError):
        _native.pack_f32("i8", rows.astype(np.float64), good, 32, 0, 1)
    assert np.array_equal(good, before)
