"""The stores of an encoder-decoder model: fills, copies, sizes, and what one sequence can do to another."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from offramp.errors import InvalidParameter
from offramp.types.executor import EncoderShape, Executor, SeqRows, Source
from tests.executors.kinds import read_hidden, read_kv, read_source, slots_of
from tests.executors.t5_toys import VARIANTS, T5Toy, encode_all, make_t5_toy
from tests.executors.toys import block_tables, every_log_prob, random_prompts, run_all

LENGTHS, SOURCES = (7, 11), (9, 14)
NAN = 96
"""A token whose embedding is broken."""


@pytest.fixture(scope="module")
def t5(kind: str) -> T5Toy:
    return make_t5_toy(kind=kind)


def prepared(toy: T5Toy) -> tuple[Executor, list[list[int]], list[Source]]:
    executor, tokens = toy.executor(exits=(1, 2)), random_prompts(LENGTHS)
    tables, sources = block_tables(LENGTHS, 4, 48), encode_all(executor, random_prompts(SOURCES, seed=1))
    run_all(executor, tokens, tables, sources)
    return executor, tables, sources


def whole_store(executor: Executor) -> np.ndarray:
    """The decoder's own K and V [layers, 2, slots, heads * head_dim]."""
    shape = executor.shape
    slots = range(shape.num_blocks * shape.block_size)
    return np.array([read_kv(executor, layer, slots) for layer in range(shape.num_layers)])


def whole_sources(executor: Executor) -> np.ndarray:
    """K and V of cross-attention [layers, 2, slots, heads * head_dim]."""
    shape = executor.shape
    assert shape.encoder is not None
    slots = range(shape.encoder.num_blocks * shape.block_size)
    return np.array([read_source(executor, layer, slots) for layer in range(shape.num_layers)])


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("segments", [range(1, 3), range(2, 3)])
def test_a_fill_equals_norm_and_projection_layer_by_layer(variant: str, segments: range, kind: str) -> None:
    """K and V of every layer above, by Transformers' own modules; boundaries, sources and other slots stay."""
    toy = make_t5_toy(variant, kind=kind)
    executor, tables, sources = prepared(toy)
    rows = [[1, 4, 6], [10]]
    before, of_sources = whole_store(executor), whole_sources(executor)
    boundaries = [read_hidden(executor, boundary, range(192)) for boundary in (1, 2, 3)]
    batch = [SeqRows(r, [], t, s) for r, t, s in zip(rows, tables, sources, strict=True)]
    executor.pass_tokens(1, segments, batch)
    after = whole_store(executor)
    slots = [slot for r, t in zip(rows, tables, strict=True) for slot in slots_of(executor, r, t)]
    hidden = torch.tensor(read_hidden(executor, 1, slots)).double()
    for layer in range(segments.start, toy.spec.num_layers):
        sublayer = toy.model.decoder.block[layer].layer[0]
        with torch.no_grad():
            x = sublayer.layer_norm(hidden)
            expected = [sublayer.SelfAttention.k(x), sublayer.SelfAttention.v(x)]
        atol = toy.tolerance(1e-12)
        np.testing.assert_allclose(after[layer][:, slots], torch.stack(expected).numpy(), rtol=0, atol=atol)
        before[layer][:, slots] = after[layer][:, slots]
    assert np.array_equal(after, before)
    assert np.array_equal(whole_sources(executor), of_sources)
    assert np.array_equal([read_hidden(executor, boundary, range(192)) for boundary in (1, 2, 3)], boundaries)


def test_a_token_that_runs_over_filled_ones_equals_a_layer_by_layer_twin(t5: T5Toy) -> None:
    """Tokens 2 and 3 leave at layer 1 and are filled; token 4 runs to the top and attends to what they left."""
    executor, tokens, text = t5.executor(exits=(1,)), random_prompts([5])[0], random_prompts([9], seed=1)[0]
    (table,), (source,) = block_tables([5], 4, 48), encode_all(executor, [text])
    executor.run_segment(0, [SeqRows(range(5), tokens, table, source)])
    executor.run_segment(1, [SeqRows([0, 1], [], table, source)])
    executor.pass_tokens(1, range(1, 2), [SeqRows([2, 3], [], table, source)])
    executor.run_segment(1, [SeqRows([4], [], table, source)])
    twin = twin_log_probs(t5, text, tokens, exits={2: 1, 3: 1})
    for p in (0, 1, 4):
        ours = every_log_prob(executor, 2, 5, table)[p]
        torch.testing.assert_close(ours, twin[p], rtol=0, atol=t5.tolerance(1e-9))
    assert not torch.allclose(every_log_prob(executor, 2, 5, table)[4], t5.log_probs(text, tokens, 4)[4])


def twin_log_probs(toy: T5Toy, text: list[int], tokens: list[int], exits: dict[int, int]) -> torch.Tensor:
    """The top's log-probabilities [tokens, vocab], token by token and layer by layer, where the tokens in `exits` keep
    their hidden state from that layer on; for these, the row is of no meaning."""
    spec, decoder = toy.spec, toy.model.decoder
    bias = decoder.block[0].layer[0].SelfAttention.compute_bias(len(tokens), len(tokens))[0]
    encoded, states = toy.encoded(text), [toy.model.shared.weight[token] for token in tokens]

    def attend(module: Any, x: torch.Tensor, context: torch.Tensor, added: torch.Tensor | None) -> torch.Tensor:
        heads = (spec.num_heads, spec.head_dim)
        q, k, v = module.q(x).view(heads), module.k(context).view(-1, *heads), module.v(context).view(-1, *heads)
        products = torch.einsum("hd,chd->hc", q, k) + (0 if added is None else added)
        result: torch.Tensor = module.o(torch.einsum("hc,chd->hd", products.softmax(-1), v).flatten())
        return result

    with torch.no_grad():
        for index, block in enumerate(decoder.block):
            own, cross, last = block.layer
            normed = torch.stack([own.layer_norm(h) for h in states])
            for p in range(len(tokens)):
                if p in exits and index >= exits[p]:
                    continue
                h = states[p]
                h = h + attend(own.SelfAttention, normed[p], normed[: p + 1], bias[:, p, : p + 1])
                h = h + attend(cross.EncDecAttention, cross.layer_norm(h), encoded, None)
                states[p] = last(h[None, None])[0, 0]
        normed = decoder.final_layer_norm(torch.stack(states)) * spec.head_scale
        return torch.log_softmax(toy.model.lm_head(normed), -1)


def test_a_copied_block_serves_in_place_of_the_original(t5: T5Toy) -> None:
    executor, tokens, text = t5.executor(), random_prompts([8])[0], random_prompts([13], seed=2)[0]
    (source,) = encode_all(executor, [text])
    executor.run_segment(0, [SeqRows(range(7), tokens[:7], [3, 9], source)])
    executor.copy_blocks([(3, 20), (9, 21)])
    run_all(executor, [random_prompts([8], seed=1)[0]], [[3, 9]], [source])
    executor.run_segment(0, [SeqRows([7], [tokens[7]], [20, 21], source)])
    for segment in (1, 2):
        executor.run_segment(segment, [SeqRows(range(8), tokens, [20, 21], source)])
    ours = every_log_prob(executor, 3, 8, [20, 21])
    torch.testing.assert_close(ours, t5.log_probs(text, tokens, 4), rtol=0, atol=t5.tolerance(1e-9))


def test_sequences_may_share_a_source(t5: T5Toy) -> None:
    executor, prompts, text = t5.executor(), random_prompts([5, 5, 9]), random_prompts([13], seed=2)[0]
    (source,), tables = encode_all(executor, [text]), block_tables([5, 5, 9], 4, 48)
    run_all(executor, prompts, tables, [source] * 3)
    for tokens, table in zip(prompts, tables, strict=True):
        ours = every_log_prob(executor, 3, len(tokens), table)
        torch.testing.assert_close(ours, t5.log_probs(text, tokens, 4), rtol=0, atol=t5.tolerance(1e-9))


def test_a_source_that_is_not_finite_harms_no_other(kind: str) -> None:
    """Its NaN lie in blocks that shorter sources of the same bucket are padded over, or get later."""
    toy = make_t5_toy("1.1", kind=kind)
    toy.source.arrays["shared.weight"][NAN] = math.nan
    executor, texts, prompts = toy.executor(), random_prompts(SOURCES, seed=1), random_prompts([3, 3, 3])
    assert NAN not in {token for tokens in (*texts, *prompts) for token in tokens}
    assert executor.shape.encoder is not None
    spoiled = [[NAN] * 16 for _ in range(executor.shape.encoder.num_blocks // 4)]
    encode_all(executor, spoiled)
    assert np.isnan(whole_sources(executor)).all()
    last = Source(16, [60, 61, 62, 63])
    sources, tables = encode_all(executor, texts), block_tables([3, 3, 3], 4, 48)
    run_all(executor, prompts, tables, [*sources, last])
    for tokens, text, table in zip(prompts, texts, tables, strict=False):
        ours = every_log_prob(executor, 3, 3, table)
        torch.testing.assert_close(ours, toy.log_probs(text, tokens, 4), rtol=0, atol=toy.tolerance(1e-9))


def test_empty_work_is_allowed(t5: T5Toy) -> None:
    executor, _, sources = prepared(t5)
    before, of_sources = whole_store(executor), whole_sources(executor)
    executor.encode([])
    executor.run_segment(0, [])
    executor.run_segment(1, [SeqRows([], [], [], sources[0])])
    executor.pass_tokens(1, range(1, 3), [])
    assert np.array_equal(whole_store(executor), before) and np.array_equal(whole_sources(executor), of_sources)


def test_the_shape_tells_of_the_encoder(t5: T5Toy) -> None:
    executor = t5.executor(max_model_len=40, max_source_len=30, num_source_blocks=8)
    assert isinstance(executor, Executor)
    shape = executor.shape
    assert shape.encoder == EncoderShape(max_source_len=30, num_blocks=8, decoder_start_token_id=0)
    assert (shape.num_layers, shape.exit_layers, shape.max_model_len, shape.eos_token_ids) == (4, (1, 2), 40, (1,))
    shape = t5.executor(num_source_blocks=None).shape
    assert shape.encoder == EncoderShape(t5.spec.max_model_len, 48, 0)


def test_sizes_that_no_store_has_are_refused(t5: T5Toy) -> None:
    sizes: list[dict[str, Any]] = [{"num_source_blocks": 0}, {"max_source_len": 0}, {"max_source_len": 1 << 20}]
    for options in sizes:
        with pytest.raises(InvalidParameter, match=f"`{next(iter(options))}` must be a whole number of at least 1 and"):
            t5.executor(**options)
