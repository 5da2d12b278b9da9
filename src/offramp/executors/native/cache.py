"""Packed matrices kept in a file, so that a model is packed once; `packed_files` says where, and for how long.

The file:

    magic (8 bytes), SHA-256 of the header (32), length of the header (8, little-endian), header (JSON),
    then, from a multiple of 4096 bytes on, the memory that the matrices lie in.

Nothing in the file says where to read: names, types, shapes and offsets follow from the model (`plan`), and a header
that is not exactly the one expected makes the file worthless. The one thing taken from it is a CRC-32 for each matrix,
against which the contents are checked. A file that fails any check is packed anew and replaced. It is read, not mapped:
that costs 0.1 s for 150 MB, and what has been checked stays as it was whatever happens to the file.
"""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from offramp import _native
from offramp._version import __version__
from offramp.executors.native.layout import Bytes, PackedMatrix, WeightType, allocate, matrix_bytes, round_up
from offramp.executors.native.matrices import MatrixPlan
from offramp.executors.native.pack import EXACT, in_parallel, lay_out, pack_model
from offramp.executors.native.packed_files import limit_gb, mark_used, packed_path, prune
from offramp.files import draft_of
from offramp.weights.source import WeightSource, fingerprint

FORMAT = 1
MAGIC = b"offramp\n"
PAGE = 4096
MAX_HEADER_BYTES = 1 << 26
KINDS: tuple[WeightType, ...] = ("f32", "f16", "bf16", "i8", "i4", "i4m")


class _Stale(Exception):
    """The file is not what is expected."""


def load_packed(
    plans: Sequence[MatrixPlan], source: WeightSource, dtype: str, threads: int | None = None
) -> dict[str, PackedMatrix]:
    """The matrices of `plans` by name: from the cache file, or packed now and written there for the next time.

    Weights that lie in no file are not cached. A cache that cannot be read or written is done without. Without
    `threads`, one for each core.

    Raises:
        InvalidParameter: `OFFRAMP_PACKED_GB` is no size.
        WeightsError: a tensor cannot be read.
    """
    if not source.files:
        return pack_model(plans, source, threads)[0]
    identity, path, limit = source_identity(source), packed_path(source.files, dtype), limit_gb()
    try:
        packed = read_packed(path, plans, identity, threads)
    except (_Stale, OSError):
        packed, memory = pack_model(plans, source, threads)
        with suppress(OSError):  # a full disk, a folder that cannot be written: it is packed again the next time
            write_packed(path, plans, identity, packed, memory)
            prune(path, limit)
    else:
        mark_used(path)
    return packed


def source_identity(source: WeightSource) -> str:
    """What tells the weights apart: samples of the files, and when they were last written."""
    times = [path.stat().st_mtime_ns for path in source.files]
    return hashlib.sha256(f"{fingerprint(source.files)} {times}".encode()).hexdigest()


def read_packed(
    path: Path, plans: Sequence[MatrixPlan], identity: str, threads: int | None = None
) -> dict[str, PackedMatrix]:
    """Read and check a cache file.

    Raises:
        OSError: there is none, or it cannot be read.
        _Stale: it holds something else, or is corrupt.
    """
    offsets, size = lay_out(plans)
    with path.open("rb") as file:
        checksums, start = _read_header(file.read(PAGE), file.fileno(), _expected_header(plans, offsets, identity))
        if os.fstat(file.fileno()).st_size != start + size:
            raise _Stale("size")
        memory = allocate(size)
        packed = {
            plan.name: PackedMatrix(plan.type, plan.n, plan.k, memory[at : at + plan.num_bytes])
            for plan, at in zip(plans, offsets, strict=True)
        }
        in_parallel(
            [
                partial(_read_matrix, file.fileno(), start + at, packed[plan.name].data, checksum)
                for plan, at, checksum in zip(plans, offsets, checksums, strict=True)
            ],
            threads,
        )
    return packed


def write_packed(
    path: Path, plans: Sequence[MatrixPlan], identity: str, packed: Mapping[str, PackedMatrix], memory: Bytes
) -> None:
    """Write a cache file; whoever reads at the same time sees the old one or the new one whole.

    Raises:
        OSError: it cannot be written.
    """
    header = _expected_header(plans, lay_out(plans)[0], identity)
    header["checksums"] = [zlib.crc32(packed[plan.name].data.data) for plan in plans]
    text = json.dumps(header).encode()
    head = MAGIC + hashlib.sha256(text).digest() + len(text).to_bytes(8, "little") + text
    path.parent.mkdir(parents=True, exist_ok=True)
    with draft_of(path) as draft, draft.open("wb") as file:
        file.write(head.ljust(round_up(len(head), PAGE), b"\0"))
        file.write(memory.data)


def _expected_header(plans: Sequence[MatrixPlan], offsets: Sequence[int], identity: str) -> dict[str, Any]:
    """The header but for its checksums."""
    return {
        "format": FORMAT,
        "offramp": __version__,
        "packing": packing_identity(),
        "source": identity,
        "matrices": [[p.name, p.type, p.n, p.k, at, p.num_bytes] for p, at in zip(plans, offsets, strict=True)],
    }


def _read_header(start: bytes, file: int, expected: dict[str, Any]) -> tuple[list[int], int]:
    """Checksums of the matrices, and where they begin."""
    fixed = len(MAGIC) + 32 + 8
    size = int.from_bytes(start[fixed - 8 : fixed], "little")
    if start[: len(MAGIC)] != MAGIC or size > MAX_HEADER_BYTES:
        raise _Stale("magic")
    text = os.pread(file, size, fixed)
    if len(text) != size or hashlib.sha256(text).digest() != start[len(MAGIC) : fixed - 8]:
        raise _Stale("checksum of the header")
    try:
        header = json.loads(text)
        checksums = header.pop("checksums")
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise _Stale("header") from error
    numbers = isinstance(checksums, list) and all(type(c) is int for c in checksums)
    if header != expected or not numbers or len(checksums) != len(expected["matrices"]):
        raise _Stale("header")
    return checksums, round_up(fixed + size, PAGE)


def _read_matrix(file: int, offset: int, target: Bytes, checksum: int) -> None:
    view, done = target.data, 0
    while done < len(view):
        count = os.preadv(file, [view[done:]], offset + done)
        if count == 0:
            raise _Stale("size")
        done += count
    if zlib.crc32(view) != checksum:
        raise _Stale("checksum of a matrix")


@cache
def packing_identity() -> str:
    """What tells versions of the packing code apart: a hash of every type's bytes, and of what blocks become."""
    rows = np.sin(np.arange(20 * 70, dtype=np.float32)).reshape(20, 70)
    digest = hashlib.sha256(repr(EXACT).encode())
    for kind in KINDS:
        target = allocate(matrix_bytes(kind, *rows.shape))
        _native.pack_f32(kind, rows, target, len(rows), 0, 1)
        digest.update(target.tobytes())
    return digest.hexdigest()[:16]
