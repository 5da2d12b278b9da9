"""Packed matrices: how large they are, where they lie, and taking columns out of them.

The layout itself is described in `csrc/weights.h`: panels of 16 outputs, each output a lane.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

WeightType = Literal["f32", "f16", "bf16", "i8", "i4", "i4m"]
Bytes = npt.NDArray[np.uint8]

PANEL = 16
GROUP = 32
ALIGN = 64
HUGE_PAGE = 1 << 21

LANE_BYTES: dict[WeightType, int] = {"f32": 4, "f16": 2, "bf16": 2, "i8": 2, "i4": 2, "i4m": 2}
"""Neighbouring bytes of one output in the weights of a panel."""


class PackedMatrix(NamedTuple):
    """A matrix from `k` inputs to `n` outputs; `data` is aligned to 64 bytes."""

    type: WeightType
    n: int
    k: int
    data: Bytes


def round_up(value: int, unit: int) -> int:
    """The smallest multiple of `unit` that is at least `value`."""
    return -(-value // unit) * unit


def weight_bytes(kind: WeightType, k: int) -> int:
    """Bytes of the weights in a panel."""
    per_output = {"f32": 4 * k, "f16": 2 * k, "bf16": 2 * k, "i8": round_up(k, GROUP)}
    return PANEL * per_output.get(kind, round_up(k, GROUP) // 2)


def scale_bytes(kind: WeightType, k: int) -> int:
    """Bytes of the scales and minima in a panel."""
    vectors = {"i8": 1, "i4": 1, "i4m": 2}.get(kind, 0)
    return vectors * round_up(k, GROUP) // GROUP * PANEL * 2


def panel_bytes(kind: WeightType, k: int) -> int:
    """Bytes of a panel."""
    return round_up(weight_bytes(kind, k) + scale_bytes(kind, k), ALIGN)


def matrix_bytes(kind: WeightType, n: int, k: int) -> int:
    """Bytes of a matrix."""
    return round_up(n, PANEL) // PANEL * panel_bytes(kind, k)


def allocate(size: int) -> Bytes:
    """Zeroed memory, (size,) uint8, aligned to 64 bytes, in huge pages where it is large and the system grants them.

    On the machine this was written on, a step took the same time in huge pages, in small ones and in a mapped file.
    """
    if size < HUGE_PAGE:
        memory = np.zeros(size + ALIGN, dtype=np.uint8)
        start = -memory.ctypes.data % ALIGN
        return memory[start : start + size]
    pages = mmap.mmap(-1, round_up(size, HUGE_PAGE) + HUGE_PAGE)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        pages.madvise(mmap.MADV_HUGEPAGE)
    memory = np.frombuffer(pages, dtype=np.uint8)
    start = -memory.ctypes.data % HUGE_PAGE
    return memory[start : start + size]


def take_columns(*sources: tuple[PackedMatrix, Sequence[int]]) -> PackedMatrix:
    """A matrix of outputs of other matrices, of one type and number of inputs, bit for bit; in the order given."""
    first = sources[0][0]
    assert all((m.type, m.k) == (first.type, first.k) for m, _ in sources)
    n = sum(len(columns) for _, columns in sources)
    target = PackedMatrix(first.type, n, first.k, allocate(matrix_bytes(first.type, n, first.k)))
    at = 0
    for matrix, columns in sources:
        panels, lanes = np.divmod(np.asarray(columns, dtype=np.int64), PANEL)
        to_panels, to_lanes = np.divmod(np.arange(at, at + len(columns)), PANEL)
        for read, write in zip(_lanes(matrix), _lanes(target), strict=True):
            write[to_panels, :, to_lanes] = read[panels, :, lanes]
        at += len(columns)
    _mask_padding(target)
    return target


def _lanes(matrix: PackedMatrix) -> Iterator[npt.NDArray[np.void]]:
    """Views [panels, units, lane] of the weights, and of scales and minima where there are any."""
    split, scales = weight_bytes(matrix.type, matrix.k), scale_bytes(matrix.type, matrix.k)
    panels = matrix.data.reshape(-1, panel_bytes(matrix.type, matrix.k))
    width = LANE_BYTES[matrix.type]
    yield panels[:, :split].reshape(len(panels), -1, PANEL, width).view(f"V{width}")[..., 0]
    if scales:
        yield panels[:, split : split + scales].reshape(len(panels), -1, PANEL, 2).view("V2")[..., 0]


def _mask_padding(matrix: PackedMatrix) -> None:
    """The weights of lanes past the last output are zero, which is a nibble of 8 where they have an offset; all else is
    zero as it was allocated."""
    past = matrix.n % PANEL
    if past and matrix.type == "i4":
        next(_lanes(matrix))[-1, :, past:] = np.array([0x88] * 2, dtype=np.uint8).view("V2")
