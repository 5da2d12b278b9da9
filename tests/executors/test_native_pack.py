"""Packing models: which tensor goes where, and what is lost."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from offramp.errors import WeightsError
from offramp.executors.native.matrices import DTYPES, MatrixPlan
from offramp.executors.native.pack import pack_model
from offramp.executors.native.plan import plan_matrices
from offramp.weights import WeightSource
from tests.executors.native import SPEC, gguf_model, unpacked_parts
from tests.toy import DictSource, toy_spec, toy_weights

STEP = {"f32": 0.0, "f16": 2.0**-11, "bf16": 2.0**-8, "i8": 0.51 / 127, "i4m": 1.5 / 15}
"""Largest rounding error, in parts of the largest weight; minima are fitted to all weights, not to the outermost."""


def pack(source: WeightSource, dtype: str) -> dict[str, tuple[MatrixPlan, dict[str, np.ndarray]]]:
    """Each matrix by name: its plan, and the tensors that come out of it."""
    plans = plan_matrices(SPEC, source, dtype)
    packed, _ = pack_model(plans, source)
    return {plan.name: (plan, unpacked_parts(plan, packed[plan.name])) for plan in plans}


def expected(source: WeightSource, plan: MatrixPlan, tensor: str) -> np.ndarray:
    array = source.load(tensor).astype(np.float32)
    norm = next(part.norm for part in plan.parts if part.tensor == tensor)
    return array if norm is None else array * source.load(norm)


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_tensor_is_in_its_place(dtype: str) -> None:
    source = DictSource(toy_weights(SPEC))
    packed = pack(source, dtype)
    assert [*packed] == ["embedding", "0.qkv", "0.out", "0.gate_up", "0.down", "0.passing"]
    for plan, parts in packed.values():
        for tensor, array in parts.items():
            wanted = expected(source, plan, tensor)
            assert np.abs(array - wanted).max() <= STEP[plan.type] * np.abs(wanted).max()


def test_an_lm_head_of_its_own_is_packed_too() -> None:
    spec = toy_spec(2)
    plans = plan_matrices(spec, DictSource(toy_weights(spec)), "int4")
    assert [(p.name, p.type) for p in plans[:2]] == [("embedding", "i8"), ("lm_head", "i8")]
    assert {p.type for p in plans[2:]} == {"i4m", "i8"}


@pytest.mark.parametrize(
    ("stored", "dtype", "kind"), [("Q8_0", "int8", "i8"), ("Q4_0", "int4", "i4"), ("Q4_1", "int4", "i4m")]
)
def test_blocks_that_the_type_can_hold_lose_nothing(tmp_path: Path, stored: str, dtype: str, kind: str) -> None:
    source = gguf_model(tmp_path, {"token_embd": "Q8_0"}, stored)
    for name, (plan, parts) in pack(source, dtype).items():
        if name != "0.passing":
            assert plan.type == ("i8" if name == "embedding" else kind)
            assert all(np.array_equal(array, source.load(tensor)) for tensor, array in parts.items())


def test_q4_k_loses_the_rounding_of_its_scales_to_half_precision(tmp_path: Path) -> None:
    source = gguf_model(tmp_path, {"token_embd": "Q8_0"}, "Q4_K")
    for name, (plan, parts) in pack(source, "int4").items():
        for tensor, array in parts.items() if plan.type == "i4m" else ():
            wanted = source.load(tensor)
            assert 0 < np.abs(array - wanted).max() <= 2.0**-10 * np.abs(wanted).max(), name


def test_blocks_of_mixed_types_are_packed_with_minima(tmp_path: Path) -> None:
    source = gguf_model(tmp_path, {"token_embd": "Q8_0", "attn_v": "Q5_0", "ffn_down": "Q8_0"}, "Q4_0")
    types = {name: plan.type for name, (plan, _) in pack(source, "int4").items()}
    assert types == {
        "embedding": "i8",
        "0.qkv": "i4m",
        "0.out": "i4",
        "0.gate_up": "i4",
        "0.down": "i4m",
        "0.passing": "i8",
    }


@pytest.mark.parametrize("dtype", ["float32", "int8"])
@pytest.mark.parametrize("stored", ["Q4_0", "Q4_1", "Q4_K", "Q5_0", "Q8_0"])
def test_blocks_in_other_types_go_through_floats(tmp_path: Path, stored: str, dtype: str) -> None:
    source = gguf_model(tmp_path, {"token_embd": "Q8_0"}, stored)
    for plan, parts in pack(source, dtype).values():
        for tensor, array in parts.items():
            wanted = expected(source, plan, tensor)
            slack = 2.0**-10 if stored == "Q4_K" else 1e-7
            assert np.abs(array - wanted).max() <= (STEP[plan.type] + slack) * np.abs(wanted).max()


def test_weights_too_large_for_float16_are_refused() -> None:
    weights = toy_weights(SPEC)
    weights["model.layers.0.mlp.down_proj.weight"][3, 5] = 1e5
    with pytest.raises(WeightsError) as error:
        pack(DictSource(weights), "float16")
    assert str(error.value) == (
        "tensor `model.layers.0.mlp.down_proj.weight` has weights that are too large for float16\n"
        "hint: use dtype float32"
    )
