"""Matrices fused from tensors that are stored in different types, and the threads that pack them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from threading import Barrier, BrokenBarrierError
from typing import Any

import numpy as np
import pytest
from gguf import GGMLQuantizationType
from gguf.quants import dequantize, quantize

from offramp import _native
from offramp.executors.native import NativeExecutor, pack
from offramp.executors.native.pack import in_parallel, pack_model
from offramp.executors.native.plan import plan_matrices
from offramp.exits.pack import static_exits
from tests.executors.native import SPEC, gguf_model, unpacked_parts
from tests.toy import DictSource, toy_weights


def losses(folder: Path, kinds: dict[str, str], default: str) -> dict[str, float]:
    """Name of a tensor -> largest difference of its int4 weights from the dequantised ones, in parts of the largest."""
    source = gguf_model(folder, {"token_embd": "Q8_0", **kinds}, default)
    plans = plan_matrices(SPEC, source, "int4")
    packed, _ = pack_model(plans, source)
    found = {}
    for plan in plans:
        for tensor, got in unpacked_parts(plan, packed[plan.name]).items() if plan.type != "i8" else ():
            wanted = source.load(tensor)
            found[tensor.split(".")[-2]] = float(np.abs(got - wanted).max() / np.abs(wanted).max())
    return found


def test_4_bits_beside_other_4_bits_lose_nothing(tmp_path: Path) -> None:
    lost = losses(tmp_path, {"attn_k": "Q4_1", "ffn_up": "Q4_1"}, "Q4_0")
    assert len(lost) == 7 and not any(lost.values())


def test_beside_k_quants_only_those_are_rounded(tmp_path: Path) -> None:
    lost = losses(tmp_path, {"attn_v": "Q4_K", "ffn_gate": "Q4_K"}, "Q4_0")
    assert {name for name, loss in lost.items() if loss} == {"v_proj", "gate_proj"}
    assert max(lost.values()) <= 2.0**-10


def test_beside_more_bits_only_those_are_refitted(tmp_path: Path) -> None:
    lost = losses(tmp_path, {"attn_v": "Q8_0", "ffn_gate": "Q5_0", "attn_q": "Q4_1"}, "Q4_0")
    assert {name for name, loss in lost.items() if loss} == {"v_proj", "gate_proj"}


@pytest.mark.parametrize("scale", [0.0, -0.5, 2.0**-24, -3 * 2.0**-24, 2.0**-15, 8188.0, -8188.0])
def test_any_scale_of_q4_0_has_a_minimum(scale: float) -> None:
    rows = quantize(np.random.default_rng(1).standard_normal((3, 64)).astype(np.float32), GGMLQuantizationType.Q4_0)
    rows.reshape(3, 2, 18)[..., :2] = np.array([scale], dtype=np.float16).view(np.uint8)
    target = np.zeros(_native.matrix_bytes("i4m", 3, 64), dtype=np.uint8)
    _native.pack_blocks("Q4_0", rows, 64, "i4m", target, 3, 0, 1)
    assert np.array_equal(_native.unpack("i4m", target, 3, 64), dequantize(rows, GGMLQuantizationType.Q4_0))


def test_work_is_done_on_as_many_threads_as_asked() -> None:
    def meet(barrier: Barrier, seconds: float) -> None:
        barrier.wait(seconds)

    in_parallel([partial(meet, Barrier(3), 10.0)] * 3, 3)
    with pytest.raises(BrokenBarrierError):
        in_parallel([partial(meet, Barrier(2), 0.1)] * 2, 1)


def test_an_executor_packs_on_its_own_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def pool(max_workers: int) -> Any:
        asked.append(max_workers)
        return ThreadPoolExecutor(max_workers)

    monkeypatch.setattr(pack, "ThreadPoolExecutor", pool)
    weights = DictSource(toy_weights(SPEC))
    NativeExecutor(SPEC, weights, static_exits([], 1), block_size=4, num_blocks=4, threads=3)
    assert asked == [3]
