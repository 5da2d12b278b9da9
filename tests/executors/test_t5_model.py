"""Executors compute what Transformers' T5ForConditionalGeneration computes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from offramp.types.executor import ScoreRow, SeqRows, SourceRows
from offramp.types.sampling import SamplingParams
from tests.executors.kinds import read_hidden, read_source, slots_of
from tests.executors.t5_toys import SHAPES, VARIANTS, T5Toy, encode_all, make_t5_toy
from tests.executors.toys import block_tables, every_log_prob, random_prompts, run_all, run_in_random_chunks

LENGTHS = (1, 9, 14, 26)
SOURCES = (23, 1, 44, 9)


@pytest.fixture(scope="module", params=VARIANTS)
def t5(request: pytest.FixtureRequest, kind: str) -> T5Toy:
    return make_t5_toy(request.param, kind=kind)


def check(toy: T5Toy, seed: int | None, **options: Any) -> None:
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
            expected = toy.log_probs(text, prompt, layer).double()
            torch.testing.assert_close(ours, expected, rtol=0, atol=toy.tolerance(1e-9))


@pytest.mark.parametrize("seed", [None, 0, 1, 2])
def test_any_chunking_of_any_mix_of_sequences_equals_one_full_forward(t5: T5Toy, seed: int | None) -> None:
    check(t5, seed)


@pytest.mark.parametrize("block_size", [1, 16])
def test_block_size_changes_nothing(block_size: int, kind: str) -> None:
    check(make_t5_toy(kind=kind), 0, block_size=block_size, num_blocks=64, num_source_blocks=96)


def check_sources(toy: T5Toy, lengths: tuple[int, ...], **options: Any) -> None:
    """Compare K and V of every layer's cross-attention, and that nothing else is written, over a batch of sources."""
    executor, texts = toy.executor(**options), random_prompts(lengths, seed=1)
    assert executor.shape.encoder is not None
    sources = encode_all(executor, texts)
    written: set[int] = set()
    for text, source in zip(texts, sources, strict=True):
        slots = slots_of(executor, range(len(text)), source.blocks)
        written.update(slots)
        encoded = toy.encoded(text)
        for layer, block in enumerate(toy.model.decoder.block):
            attention = block.layer[1].EncDecAttention
            for ours, project in zip(read_source(executor, layer, slots), (attention.k, attention.v), strict=True):
                expected = project(encoded).detach().numpy()
                np.testing.assert_allclose(ours, expected, rtol=0, atol=toy.tolerance(1e-9))
    others = sorted(set(range(executor.shape.encoder.num_blocks * executor.shape.block_size)) - written)
    assert not any(np.any(read_source(executor, layer, others)) for layer in range(toy.spec.num_layers))


@pytest.mark.parametrize("lengths", [(1,), (7, 7, 7), (23, 1, 44, 9, 9, 1, 30)], ids=str)
def test_a_ragged_batch_of_sources_is_encoded_as_each_alone(t5: T5Toy, lengths: tuple[int, ...]) -> None:
    check_sources(t5, lengths)


def test_rows_of_a_long_source_attend_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("offramp.executors.torch.t5_layers.ROWS", 8)
    check_sources(make_t5_toy(), (3, 8, 9, 44, 44))


def test_sources_may_be_encoded_one_after_the_other(kind: str) -> None:
    toy = make_t5_toy(kind=kind)
    together, apart, texts = toy.executor(), toy.executor(), random_prompts((5, 9, 5))
    tables = [[3, 0], [8, 1, 4], [9, 2]]
    together.encode([SourceRows(text, table) for text, table in zip(texts, tables, strict=True)])
    for text, table in zip(texts, tables, strict=True):
        apart.encode([SourceRows(text, table)])
    for layer in range(4):
        ours, theirs = (read_source(executor, layer, range(40)) for executor in (apart, together))
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "shape", ["t5-small", *(pytest.param(s, marks=pytest.mark.full) for s in SHAPES if s != "t5-small")]
)
def test_real_shapes_in_float32(shape: str, kind: str) -> None:
    """Random weights: K and V of sources, and log-probabilities at exits and the top, in float32 on both sides."""
    toy = make_t5_toy("real", torch.float32, kind, matrices=None, **REAL, **SHAPES[shape])
    executor = toy.executor(exits=(2, 4), dtype="float32", num_blocks=16, num_source_blocks=32)
    texts, outputs = random_prompts((57, 20), seed=1), random_prompts((1, 30))
    sources, tables = encode_all(executor, texts), block_tables((1, 30), 4, 16)
    run_in_random_chunks(executor, outputs, tables, 0, sources)
    for text, tokens, table in zip(texts, outputs, tables, strict=True):
        states = toy.hidden(text, tokens)
        for boundary, layer in enumerate(executor.shape.layers_at[1:], start=1):
            ours = read_hidden(executor, boundary, slots_of(executor, range(len(tokens)), table))
            theirs = states[layer].numpy()
            assert np.abs(ours - theirs).max() < 1e-5 * np.abs(theirs).max()
        scored = executor.score(3, [ScoreRow(p, table, MANY, 0) for p in range(len(tokens))], frozenset())
        expected = toy.log_probs(text, tokens, toy.spec.num_layers)
        for p, row in enumerate(scored):
            assert row.logprobs is not None and row.token == expected[p].argmax()
            for token, value in row.logprobs:
                assert value == pytest.approx(float(expected[p, token]), abs=1e-3)


REAL: dict[str, Any] = {"vocab_size": 32128, "num_decoder_layers": None} | {
    "relative_attention_num_buckets": 32,
    "relative_attention_max_distance": 128,
}
MANY = SamplingParams(logprobs=20)


def test_bfloat16_stays_close_to_float64() -> None:
    toy, prompts, texts = make_t5_toy(), random_prompts([20]), random_prompts([30], seed=1)
    tables, results = block_tables([20], 4, 48), []
    for dtype in ("bfloat16", "float64"):
        executor = toy.executor(dtype=dtype)
        run_all(executor, prompts, tables, encode_all(executor, texts))
        results.append(every_log_prob(executor, 3, 20, tables[0]).exp())
    assert 0 < (results[0] - results[1]).abs().max() < 0.2


def test_rows_need_not_be_contiguous(t5: T5Toy) -> None:
    """Positions 3, 5 and 6 of an output of 8 run last, with 4 and 7 already written."""
    executor, tokens = t5.executor(exits=()), random_prompts([8])[0]
    (table,), (source,) = block_tables([8], 4, 48), encode_all(executor, random_prompts([9]))
    executor.run_segment(0, [SeqRows(range(8), tokens, table, source)])
    expected = every_log_prob(executor, 1, 8, table)
    late = [3, 5, 6]
    executor.run_segment(0, [SeqRows(late, [0, 0, 0], table, source)])
    assert not torch.allclose(every_log_prob(executor, 1, 8, table)[late], expected[late])
    executor.run_segment(0, [SeqRows(late, [tokens[p] for p in late], table, source)])
    torch.testing.assert_close(every_log_prob(executor, 1, 8, table), expected, rtol=0, atol=1e-12)


def test_greedy_tokens_are_those_that_transformers_generates(t5: T5Toy) -> None:
    """All sequences in one batch, one token at a time."""
    executor, texts = t5.executor(exits=(2,)), random_prompts((12, 1, 30, 12))
    sources, tables = encode_all(executor, texts), block_tables([16] * 4, 4, 48)
    outputs = [[t5.spec.decoder_start_token_id] for _ in texts]
    for position in range(15):
        rows = [
            SeqRows([position], [tokens[-1]], table, source)
            for tokens, table, source in zip(outputs, tables, sources, strict=True)
        ]
        for segment in (0, 1):
            executor.run_segment(segment, rows)
        scored = executor.score(2, [ScoreRow(position, table, SamplingParams(), 0) for table in tables], frozenset())
        for tokens, row in zip(outputs, scored, strict=True):
            assert row.token is not None
            tokens.append(row.token)
    for text, ours in zip(texts, outputs, strict=True):
        # Transformers' cache has as many layers as the encoder.
        generated = t5.model.generate(torch.tensor([text]), max_new_tokens=15, do_sample=False, use_cache=False)
        theirs = generated[0].tolist()
        assert ours[: len(theirs)] == theirs
        assert len(theirs) == 16 or theirs[-1] in t5.spec.eos_token_ids
    assert len({tuple(tokens) for tokens in outputs}) > 1
