"""Packing tensors into matrices, several threads at once.

Blocks of a GGUF file whose weights the target can hold exactly are repacked as they are (Q8_0 as i8; Q4_0 as i4, or as
i4m beside other types; Q4_1 as i4m; Q4_K as i4m, whose products of scales are rounded to f16). Everything else goes
through float32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import numpy.typing as npt

from offramp import _native
from offramp.errors import WeightsError
from offramp.executors.native.layout import (
    ALIGN,
    PANEL,
    Bytes,
    PackedMatrix,
    WeightType,
    allocate,
    matrix_bytes,
    round_up,
)
from offramp.executors.native.matrices import MatrixPlan, Part
from offramp.executors.native.threads import default_threads
from offramp.weights.source import BlockSource, WeightSource

Floats = npt.NDArray[np.float32]

EXACT: Mapping[str, tuple[WeightType, ...]] = {
    "Q8_0": ("i8",),
    "Q4_0": ("i4", "i4m"),
    "Q4_1": ("i4m",),
    "Q4_K": ("i4m",),
}
"""GGUF block type -> the types that it is repacked to without going through floats."""

CHUNK_ROWS = 256 * PANEL
"""Rows of a tensor that are packed in one go, so that no large copy of it is ever made."""


def lay_out(plans: Sequence[MatrixPlan]) -> tuple[list[int], int]:
    """Where each matrix lies in one piece of memory, and its size."""
    offsets, end = [], 0
    for plan in plans:
        offsets.append(end)
        end += round_up(plan.num_bytes, ALIGN)
    return offsets, end


def pack_model(
    plans: Sequence[MatrixPlan], source: WeightSource, threads: int | None = None
) -> tuple[dict[str, PackedMatrix], Bytes]:
    """All matrices by name, and the memory they lie in. Without `threads`, one for each core.

    Raises:
        WeightsError: a tensor cannot be read, or does not fit float16.
    """
    offsets, size = lay_out(plans)
    memory = allocate(size)
    packed = {
        plan.name: PackedMatrix(plan.type, plan.n, plan.k, memory[at : at + plan.num_bytes])
        for plan, at in zip(plans, offsets, strict=True)
    }
    work = [piece for plan in plans for part in plan.parts for piece in _pack_part(part, source, packed[plan.name])]
    in_parallel(work, threads)
    return packed, memory


def pack_array(kind: WeightType, array: npt.NDArray[np.generic]) -> PackedMatrix:
    """A matrix [n, k] of numbers."""
    n, k = array.shape
    target = PackedMatrix(kind, n, k, allocate(matrix_bytes(kind, n, k)))
    _pack_floats(target, as_floats(array), Part("", n), 0)
    return target


def pack_pairs(kind: WeightType, first: npt.NDArray[np.generic], second: npt.NDArray[np.generic]) -> PackedMatrix:
    """Two matrices [n, k] whose panels alternate."""
    n, k = first.shape
    both = 2 * round_up(n, PANEL)
    target = PackedMatrix(kind, both, k, allocate(matrix_bytes(kind, both, k)))
    for number, array in enumerate((first, second)):
        _pack_floats(target, as_floats(array), Part("", n, number, 2), 0)
    return target


def as_floats(array: npt.NDArray[np.generic]) -> Floats:
    """`array` as contiguous float32."""
    return np.ascontiguousarray(array, dtype=np.float32)


def in_parallel(work: Sequence[Callable[[], None]], threads: int | None = None) -> None:
    """Do all `work` on so many threads, None being one for each core; the first error is raised."""
    with ThreadPoolExecutor(max_workers=threads or default_threads()) as pool:
        for done in [pool.submit(item) for item in work]:
            done.result()


def _pack_part(part: Part, source: WeightSource, target: PackedMatrix) -> Iterator[Callable[[], None]]:
    """The work of packing one tensor, in pieces that may run at the same time."""
    if isinstance(source, BlockSource) and source.block_kind(part.tensor) in EXACT:
        for start in range(0, part.rows, CHUNK_ROWS):
            yield partial(_pack_blocks, part, source, target, start)
    else:
        yield partial(_pack_tensor, part, source, target)


def _pack_blocks(part: Part, source: BlockSource, target: PackedMatrix, start: int) -> None:
    kind, rows = source.raw(part.tensor)
    chunk = np.ascontiguousarray(rows[start : start + CHUNK_ROWS])
    first = part.first + start // PANEL * part.step
    if target.type in EXACT[kind] and part.norm is None:
        _native.pack_blocks(kind, chunk, target.k, target.type, target.data, target.n, first, part.step)
        return
    own, n, k = EXACT[kind][0], len(chunk), target.k
    exact = allocate(matrix_bytes(own, n, k))
    _native.pack_blocks(kind, chunk, k, own, exact, n, 0, 1)
    floats = _native.unpack(own, exact, n, k)
    _pack_floats(target, _folded(floats, part, source), part, start)


def _pack_tensor(part: Part, source: WeightSource, target: PackedMatrix) -> None:
    array = source.load(part.tensor)
    for start in range(0, part.rows, CHUNK_ROWS):
        floats = as_floats(array[start : start + CHUNK_ROWS])
        _pack_floats(target, _folded(floats, part, source), part, start)


def _folded(floats: Floats, part: Part, source: WeightSource) -> Floats:
    return floats if part.norm is None else floats * as_floats(source.load(part.norm))


def _pack_floats(target: PackedMatrix, floats: Floats, part: Part, start: int) -> None:
    if target.type == "f16" and np.abs(floats).max(initial=0) > np.finfo(np.float16).max:
        raise WeightsError(
            f"tensor `{part.tensor}` has weights that are too large for float16", hint="use dtype float32"
        )
    first = part.first + start // PANEL * part.step
    _native.pack_f32(target.type, floats, target.data, target.n, first, part.step)
