"""Executors compute what Transformers' T5ForConditionalGeneration computes."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.executors.t5_toys import VARIANTS, T5Toy, encode_all, make_t5_toy
from tests.executors.toys import block_tables, every_log_prob, random_prompts, run_all, run_in_random_chunks

LENGTHS = (1, 9, 14, 26)
SOURCES = (23, 1, 44, 9)


@pytest.fixture(scope="module", params=VARIANTS)
def t5(request: pytest.FixtureRequest) -> T5Toy:
    return make_t5_toy(request.param)


def check(toy: T5Toy, tolerance: float, seed: int | None, **options: Any) -> None:
    """Compare log-probabilities at every boundary and position of several sequences over sources of their own."""
    executor = toy.executor(exits=(0, 1, 2, 3), **options)
    prompts, texts = random_prompts(LENGTHS), random_prompts(SOURCES, seed=1)
    tables = block_tables(LENGTHS, executor.shape.block_size, executor.shape.num_blocks)
    sources = encode_all(executor, texts)
    if seed is None:
        run_all(executor, prompts, tables, sources)
    else:
        run_in_random_chunks(executor, prompts, tables, seed, sources)
    for prompt, text, table in zip(prompts, texts, tables, strict=True):
        for boundary, layer in enumerate(executor.shape.layers_at[1:], start=1):
            ours = every_log_prob(executor, boundary, len(prompt), table)
            torch.testing.assert_close(ours, toy.log_probs(text, prompt, layer).double(), rtol=0, atol=tolerance)


@pytest.mark.parametrize("seed", [None, 0, 1, 2])
def test_any_chunking_of_any_mix_of_sequences_equals_one_full_forward(t5: T5Toy, seed: int | None) -> None:
    check(t5, 1e-9, seed)
