"""`pass_tokens` against a layer-by-layer twin."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from offramp.types.executor import Executor, SeqRows
from tests.executors.kinds import read_hidden, read_kv, slots_of
from tests.executors.toys import FAMILIES, Toy, block_tables, make_toy, random_prompts, run_all

LENGTHS = (7, 11)


@pytest.fixture(scope="module")
def toy(kind: str) -> Toy:
    return make_toy(kind=kind)


def pass_layer_by_layer(toy: Toy, layer: int, hidden: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
    """K and V of one layer by Transformers' own modules: norm, projection, K-norm, rotation."""
    block = toy.model.model.layers[layer]
    with torch.no_grad():
        x = block.input_layernorm(hidden)
        shape = (len(hidden), toy.spec.num_kv_heads, toy.spec.head_dim)
        k, v = (getattr(block.self_attn, f"{name}_proj")(x).view(shape) for name in "kv")
        if toy.spec.qk_norm:
            k = block.self_attn.k_norm(k)
        cos, sin = (part[:, None] for part in toy.model.model.rotary_emb(hidden, positions))
        first, second = k.chunk(2, -1)
        return k * cos + torch.cat((-second, first), -1) * sin, v


def prepared(toy: Toy) -> tuple[Executor, list[list[int]]]:
    executor, prompts = toy.executor(exits=(1, 2)), random_prompts(LENGTHS)
    tables = block_tables(LENGTHS, 4, 48)
    run_all(executor, prompts, tables)
    return executor, tables


def whole_store(executor: Executor) -> np.ndarray:
    """K and V [layers, 2, slots, kv_heads * head_dim]."""
    shape = executor.shape
    slots = range(shape.num_blocks * shape.block_size)
    return np.array([read_kv(executor, layer, slots) for layer in range(shape.num_layers)])


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("segments", [range(1, 3), range(2, 3)])
def test_one_gemm_equals_layer_by_layer(family: str, segments: range, kind: str) -> None:
    toy = make_toy(family, kind=kind)
    executor, tables = prepared(toy)
    rows = [[1, 4, 6], [10]]
    before = whole_store(executor)
    executor.pass_tokens(1, segments, [SeqRows(r, [], t) for r, t in zip(rows, tables, strict=True)])
    after = whole_store(executor)
    positions = torch.tensor([p for r in rows for p in r])
    slots = [slot for r, t in zip(rows, tables, strict=True) for slot in slots_of(executor, r, t)]
    hidden = torch.tensor(read_hidden(executor, 1, slots), dtype=torch.float64)
    for layer in range(segments.start, toy.spec.num_layers):
        for part, expected in enumerate(pass_layer_by_layer(toy, layer, hidden, positions)):
            np.testing.assert_allclose(
                after[layer, part, slots], expected.flatten(1), rtol=0, atol=toy.tolerance(1e-12)
            )
        before[layer][:, slots] = after[layer][:, slots]
    assert np.array_equal(after, before)


def test_a_pass_writes_no_boundary(toy: Toy) -> None:
    executor, tables = prepared(toy)
    before = [read_hidden(executor, boundary, range(192)) for boundary in (1, 2, 3)]
    executor.pass_tokens(1, range(1, 3), [SeqRows([2], [], tables[0])])
    assert np.array_equal([read_hidden(executor, boundary, range(192)) for boundary in (1, 2, 3)], before)


def test_a_pass_equals_what_the_next_layer_would_write_when_run(toy: Toy) -> None:
    """The first layer above a boundary sees the same hidden state whether it runs or is passed."""
    executor, tables = prepared(toy)
    slots = slots_of(executor, [5], tables[1])
    ran = [read_kv(executor, layer, slots)[0].copy() for layer in range(4)]
    executor.pass_tokens(1, range(1, 3), [SeqRows([5], [], tables[1])])
    passed = [read_kv(executor, layer, slots)[0] for layer in range(4)]
    np.testing.assert_allclose(passed[1], ran[1], rtol=0, atol=toy.tolerance(1e-12))
    assert not np.allclose(passed[2], ran[2])
