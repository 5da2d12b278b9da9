"""The kernels, one by one, against NumPy; every instruction set against the portable one, bit for bit.

`csrc/tests/test_kernels.cpp` checks the same sets over more shapes and under the sanitizers; here the definition of a
product is written a second time, in another language.
"""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import numpy.typing as npt
import pytest

from offramp import _native

Floats = npt.NDArray[np.float32]

FLOATS = ("f32", "f16", "bf16")
INTEGERS = ("i8", "i4", "i4m")
ISAS = tuple(_native.supported_isas())


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


def normal(rng: np.random.Generator, *shape: int) -> Floats:
    return rng.standard_normal(shape).astype(np.float32)


def pack(kind: str, rows: Floats) -> npt.NDArray[np.uint8]:
    target = np.zeros(_native.matrix_bytes(kind, *rows.shape), dtype=np.uint8)
    _native.pack_f32(kind, rows, target, len(rows), 0, 1)
    return target


def matmul(kind: str, data: npt.NDArray[np.uint8], n: int, x: Floats) -> Floats:
    panels = -(-n // 16)
    out = np.full((len(x), 16 * panels), np.nan, dtype=np.float32)
    _native.matmul(kind, data, n, x, 0, panels, out, False)
    return out[:, :n]


def same(a: Floats, b: Floats) -> bool:
    return np.array_equal(a.view(np.uint32)[~np.isnan(a)], b.view(np.uint32)[~np.isnan(b)])


def integer_twin(kind: str, weights: Floats, scales: Floats, minima: Floats, x: Floats) -> Floats:
    """Products by groups: exact integers, then one rounding per group and one at the end. Rows of whole groups."""
    groups = x.shape[1] // 32
    q, x_scale, x_sum = _native.quantize(x)
    q = q.reshape(len(x), groups, 32)
    codes = np.rint((weights.reshape(-1, groups, 32) - minima[..., None]) / scales[..., None]).astype(np.int64)
    acc = np.zeros((len(x), len(weights)), dtype=np.float32)
    for g in range(groups):
        dot = (q[:, g].astype(np.int64) @ codes[:, g].T).astype(np.float32)
        # A product of two floats is exact in 64 bits, and nearly always so is the sum: rounding it is rounding once.
        acc = (np.longdouble(acc) + np.longdouble(dot) * scales[:, g]).astype(np.float32)
        if kind == "i4m":
            total = x_sum[:, g, None].astype(np.float32)
            acc = (np.longdouble(acc) + np.longdouble(minima[:, g]) * total).astype(np.float32)
    return acc * x_scale[:, None]


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("kind", FLOATS)
@pytest.mark.parametrize(("n", "k"), [(1, 1), (15, 31), (48, 33), (17, 576)])
def test_float_products(rng: np.random.Generator, isa: str, kind: str, n: int, k: int) -> None:
    _native.choose_isa(isa)
    weights, x = normal(rng, n, k), normal(rng, 5, k)
    data = pack(kind, weights)
    held = _native.unpack(kind, data, n, k)
    got = matmul(kind, data, n, x)
    bound = np.abs(x).astype(np.float64) @ np.abs(held).T.astype(np.float64)
    assert np.all(np.abs(got - x.astype(np.float64) @ held.T.astype(np.float64)) <= 1e-6 * bound)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("kind", INTEGERS)
@pytest.mark.parametrize(("n", "k"), [(1, 32), (17, 96), (48, 576), (16, 1536)])
def test_integer_products(rng: np.random.Generator, isa: str, kind: str, n: int, k: int) -> None:
    _native.choose_isa(isa)
    x = normal(rng, 3, k)
    low, high = {"i8": (-127, 127), "i4": (-8, 7), "i4m": (0, 15)}[kind]
    codes = rng.integers(low, high + 1, (n, k // 32, 32))
    # Every group has its extremes, so that packing finds these scales and minima again.
    codes[..., 0], codes[..., 1] = low, high
    scales = rng.choice(np.array([0.5, 0.25, 0.125], dtype=np.float32), (n, k // 32))
    minima = rng.choice(np.array([-1.0, -0.5] if kind == "i4m" else [0.0], dtype=np.float32), (n, k // 32))
    weights = (codes * scales[..., None] + minima[..., None]).astype(np.float32).reshape(n, k)
    data = pack(kind, weights)
    assert np.array_equal(_native.unpack(kind, data, n, k), weights)
    assert same(matmul(kind, data, n, x), integer_twin(kind, weights, scales, minima, x))


@pytest.mark.parametrize("kind", FLOATS + INTEGERS)
def test_a_row_is_the_same_in_any_company_on_any_instruction_set(rng: np.random.Generator, kind: str) -> None:
    n, k = 40, 100
    data, x = pack(kind, normal(rng, n, k)), normal(rng, 64, k)
    _native.choose_isa("portable")
    alone = np.concatenate([matmul(kind, data, n, x[i : i + 1]) for i in range(len(x))])
    for isa in ISAS:
        _native.choose_isa(isa)
        for count in range(1, 65):
            assert same(matmul(kind, data, n, x[:count]), alone[:count]), (isa, count)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("kind", FLOATS + INTEGERS)
def test_a_row_that_is_not_finite_touches_no_other(rng: np.random.Generator, isa: str, kind: str) -> None:
    _native.choose_isa(isa)
    data, x = pack(kind, normal(rng, 20, 64)), normal(rng, 6, 64)
    clean = matmul(kind, data, 20, x)
    x[1, 3], x[4, 63] = np.nan, np.inf
    got = matmul(kind, data, 20, x)
    assert not np.isfinite(got[[1, 4]]).any()
    assert same(got[[0, 2, 3, 5]], clean[[0, 2, 3, 5]])


@pytest.mark.parametrize("isa", ISAS)
def test_quantisation(rng: np.random.Generator, isa: str) -> None:
    _native.choose_isa(isa)
    x = normal(rng, 4, 70)
    x[1, :32], x[2, 40], x[3] = 0, np.nan, x[3] * np.float32(1e-42)
    q, scale, total = _native.quantize(x)
    largest = np.abs(x).max(axis=1)
    assert same(scale, np.array([*largest[:3], 0], dtype=np.float32) / np.float32(32767))  # row 3 is subnormal
    factor = np.float32(32767) / np.where([True, True, False, False], largest, np.float32(np.inf))
    codes = np.rint(np.pad(np.nan_to_num(x), ((0, 0), (0, 26))) * factor[:, None])
    assert np.array_equal(q, codes)
    assert np.array_equal(total, codes.reshape(4, 3, 32).sum(axis=2))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("n", [2, 14, 16, 30, 576])
def test_elementwise(rng: np.random.Generator, isa: str, n: int) -> None:
    _native.choose_isa(isa)
    a, b = normal(rng, n) * 5, normal(rng, n)
    wide = a.astype(np.float64)
    np.testing.assert_allclose(
        _native.rms_norm(a, b, 1e-5), wide / np.sqrt(np.mean(wide**2) + 1e-5) * b, rtol=1e-6, atol=1e-30
    )
    np.testing.assert_allclose(_native.silu_mul(a, b), wide / (1 + np.exp(-wide)) * b, rtol=1e-6, atol=1e-30)
    bent = np.tanh(np.sqrt(2 / np.pi) * (wide + 0.044715 * wide**3))
    np.testing.assert_allclose(_native.gelu_mul(a, b), 0.5 * wide * (1 + bent) * b, rtol=1e-5, atol=1e-12)
    assert np.array_equal(_native.relu(a), np.maximum(a, 0))
    total = a.copy()
    _native.add(total, b)
    assert np.array_equal(total, a + b)
    turned, cos, sin = a.copy(), b[: n // 2].copy(), b[n // 2 :].copy()
    _native.rotate(turned, cos, sin)
    first, second = wide[: n // 2], wide[n // 2 :]
    np.testing.assert_allclose(
        turned, np.concatenate([first * cos - second * sin, second * cos + first * sin]), atol=1e-5
    )


@pytest.mark.parametrize("isa", ISAS)
def test_gates_far_out(isa: str) -> None:
    _native.choose_isa(isa)
    gate = np.array([-1e30, -200, -104, -88, 0, 88, 200, 1e30, np.nan, np.inf], dtype=np.float32)
    got = _native.silu_mul(gate, np.ones_like(gate))
    assert np.array_equal(got[[0, 1, 4, 5, 6, 7]], np.array([0, 0, 0, 88, 200, 1e30], dtype=np.float32))
    assert -1e-35 < got[3] < 0 and np.isnan(got[8]) and got[9] == np.inf
    got = _native.gelu_mul(gate, np.ones_like(gate))
    assert np.array_equal(
        got, np.array([0, 0, 0, 0, 0, 88, 200, 1e30, np.nan, np.inf], dtype=np.float32), equal_nan=True
    )
    assert np.array_equal(_native.relu(gate), np.maximum(gate, 0), equal_nan=True)


@pytest.mark.parametrize("isa", ISAS)
def test_halves_are_numpys(isa: str) -> None:
    _native.choose_isa(isa)
    bits = np.arange(65536, dtype=np.uint16)
    assert np.array_equal(_native.from_half(bits), bits.view(np.float16).astype(np.float32), equal_nan=True)
    floats = np.arange(0, 2**32, 65521, dtype=np.uint32).view(np.float32)
    with np.errstate(over="ignore"):
        expected = floats.astype(np.float16)
    assert np.array_equal(_native.to_half(floats).view(np.float16), expected, equal_nan=True)


def test_sizes_that_do_not_fit_are_refused(rng: np.random.Generator) -> None:
    data, x = pack("i8", normal(rng, 20, 64)), normal(rng, 2, 64)
    out = np.zeros((2, 32), dtype=np.float32)
    for bad in (
        lambda: _native.matmul("i8", data[:-1].copy(), 20, x, 0, 2, out, False),
        lambda: _native.matmul("i8", data, 20, x, 0, 3, out, False),
        lambda: _native.matmul("i8", data, 20, x, 1, 0, out, False),
        lambda: _native.matmul("i8", data, 20, x, -1, 2, out, False),
        lambda: _native.matmul("i8", data, 20, x, 0, 1, out, False),
        lambda: _native.matmul("i9", data, 20, x, 0, 2, out, False),
        lambda: _native.rms_norm(x[0], x[0][:5].copy(), 1e-5),
        lambda: _native.rotate(x[0].copy(), x[0].copy(), x[0].copy()),
        lambda: _native.choose_isa("sse9"),
        lambda: _native.measure_fma(0),
    ):
        with pytest.raises(ValueError):
            bad()


def test_the_environment_chooses_the_instruction_set() -> None:
    show = "from offramp import _native; print(_native.isa())"
    for name in ("portable", "sse9"):
        done = subprocess.run(
            [sys.executable, "-c", show], env={**os.environ, "OFFRAMP_ISA": name}, capture_output=True, text=True
        )
        if name == "portable":
            assert done.stdout == "portable\n"
        else:
            assert done.returncode == 1
            assert "OFFRAMP_ISA is `sse9`; this machine runs" in done.stderr


def test_ceilings_are_measured() -> None:
    assert _native.measure_fma(1) > 0.1
    assert _native.measure_int8(1) > 0.1
