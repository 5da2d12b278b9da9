"""`pass_tokens` against a layer-by-layer twin."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from offramp.executors.torch import TorchExecutor
from offramp.types.executor import SeqRows
from tests.executors.toys import FAMILIES, Toy, block_tables, make_toy, random_prompts, run_all

LENGTHS = (7, 11)


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


def prepared(toy: Toy) -> tuple[TorchExecutor, list[list[int]]]:
    executor, prompts = toy.executor(exits=(1, 2)), random_prompts(LENGTHS)
    tables = block_tables(LENGTHS, 4, 48)
    run_all(executor, prompts, tables)
    return executor, tables


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("segments", [range(1, 3), range(2, 3)])
def test_one_gemm_equals_layer_by_layer(family: str, segments: range) -> None:
    toy = make_toy(family)
    executor, tables = prepared(toy)
    rows = [[1, 4, 6], [10]]
    before = executor._store.keys.clone()
    executor.pass_tokens(1, segments, [SeqRows(r, [], t) for r, t in zip(rows, tables, strict=True)])
    positions = torch.tensor([p for r in rows for p in r])
    slots = torch.tensor([executor._store.slot(p, t) for r, t in zip(rows, tables, strict=True) for p in r])
    hidden = executor._store.read_boundary(1, slots).clone()
    for layer in range(toy.spec.num_layers):
        if layer in range(segments.start, toy.spec.num_layers):
            keys, values = pass_layer_by_layer(toy, layer, hidden, positions)
            torch.testing.assert_close(executor._store.keys[layer, slots], keys, rtol=0, atol=1e-12)
            torch.testing.assert_close(executor._store.values[layer, slots], values, rtol=0, atol=1e-12)
            before[layer, slots] = executor._store.keys[layer, slots]
    assert torch.equal(executor._store.keys, before)


def test_a_pass_writes_no_boundary() -> None:
    executor, tables = prepared(make_toy())
    before = executor._store.hidden.clone()
    executor.pass_tokens(1, range(1, 3), [SeqRows([2], [], tables[0])])
    assert torch.equal(executor._store.hidden, before)


def test_a_pass_equals_what_the_next_layer_would_write_when_run() -> None:
    """The first layer above a boundary sees the same hidden state whether it runs or is passed."""
    executor, tables = prepared(make_toy())
    slot = executor._store.slot(5, tables[1])
    ran = executor._store.keys[:, slot].clone()
    executor.pass_tokens(1, range(1, 3), [SeqRows([5], [], tables[1])])
    torch.testing.assert_close(executor._store.keys[1, slot], ran[1], rtol=0, atol=1e-12)
    assert not torch.allclose(executor._store.keys[2, slot], ran[2])
