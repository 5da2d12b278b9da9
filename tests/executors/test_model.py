"""Executors compute what Transformers computes."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from offramp.types.executor import SeqRows
from tests.executors.toys import (
    FAMILIES,
    Toy,
    block_tables,
    every_log_prob,
    make_toy,
    random_prompts,
    run_all,
    run_in_random_chunks,
)

LENGTHS = (1, 9, 14, 22)
ROPES: dict[str, dict[str, Any]] = {
    "default": {"rope_type": "default", "rope_theta": 500.0},
    "linear": {"rope_type": "linear", "rope_theta": 500.0, "factor": 4.0},
    "llama3": {
        "rope_type": "llama3",
        "rope_theta": 500.0,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 16,
    },
    "yarn": {"rope_type": "yarn", "rope_theta": 500.0, "factor": 4.0, "original_max_position_embeddings": 16},
}


@pytest.fixture(scope="module", params=FAMILIES)
def toy(request: pytest.FixtureRequest, kind: str) -> Toy:
    return make_toy(request.param, kind=kind)


def check(toy: Toy, tolerance: float, seed: int | None, **options: Any) -> None:
    """Compare log-probabilities at every boundary and position of several sequences."""
    executor = toy.executor(exits=(1, 3), **options)
    prompts = random_prompts(LENGTHS)
    tables = block_tables(LENGTHS, executor.shape.block_size, executor.shape.num_blocks)
    if seed is None:
        run_all(executor, prompts, tables)
    else:
        run_in_random_chunks(executor, prompts, tables, seed)
    for prompt, table in zip(prompts, tables, strict=True):
        for boundary, layer in ((1, 1), (2, 3), (3, 4)):
            ours = every_log_prob(executor, boundary, len(prompt), table)
            torch.testing.assert_close(ours, toy.log_probs(prompt, layer).double(), rtol=0, atol=tolerance)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_any_chunking_of_any_mix_of_sequences_equals_one_full_forward(toy: Toy, seed: int) -> None:
    check(toy, toy.tolerance(1e-9), seed)


@pytest.mark.parametrize("block_size", [1, 16])
def test_block_size_changes_nothing(toy: Toy, block_size: int) -> None:
    check(toy, toy.tolerance(1e-9), 0, block_size=block_size, num_blocks=64)


@pytest.mark.parametrize("rope", ROPES)
@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_float32_agrees_for_every_kind_of_rotary_embedding(family: str, rope: str, kind: str) -> None:
    toy = make_toy(family, torch.float32, kind, rope_parameters=ROPES[rope])
    check(toy, 2e-3, None, dtype="float32")


def test_bfloat16_stays_close_to_float64() -> None:
    toy = make_toy()
    prompts, tables = random_prompts([20]), block_tables([20], 4, 48)
    results = []
    for dtype in ("bfloat16", "float64"):
        executor = toy.executor(dtype=dtype)
        run_all(executor, prompts, tables)
        results.append(every_log_prob(executor, 3, 20, tables[0]).exp())
    assert 0 < (results[0] - results[1]).abs().max() < 0.2


def test_rows_need_not_be_contiguous(toy: Toy) -> None:
    """Positions 3, 5 and 6 of a prompt of 8 run last, with 4 and 7 already written."""
    executor, prompt = toy.executor(exits=()), random_prompts([8])[0]
    table = block_tables([8], 4, 48)[0]
    executor.run_segment(0, [SeqRows(range(8), prompt, table)])
    expected = every_log_prob(executor, 1, 8, table)
    late = [3, 5, 6]
    executor.run_segment(0, [SeqRows(late, [0, 0, 0], table)])
    assert not torch.allclose(every_log_prob(executor, 1, 8, table)[late], expected[late])
    executor.run_segment(0, [SeqRows(late, [prompt[p] for p in late], table)])
    torch.testing.assert_close(every_log_prob(executor, 1, 8, table), expected, rtol=0, atol=toy.tolerance(1e-12))
