"""A token's hidden states and choices are the same bits whatever is computed with it: 1 to 64 rows of several
sequences, on any number of threads and any instruction set. It is what `verify` rests on."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from itertools import accumulate, pairwise

import numpy as np
import pytest

from offramp import _native
from offramp.executors.native import DTYPES, NativeExecutor
from offramp.types.executor import Feature, Scored, ScoreRow, SeqRows
from offramp.types.sampling import SamplingParams
from tests.executors.kinds import read_hidden, slots_of
from tests.executors.toys import block_tables
from tests.toy import DictSource, toy_pack, toy_spec, toy_weights

SPEC = replace(toy_spec(5, vocab_size=150, max_model_len=512), hidden_size=64, intermediate_size=96, head_dim=16)
PACK = toy_pack(SPEC)
WEIGHTS = DictSource(toy_weights(SPEC))
SEQUENCES = range(6)
NEEDS: frozenset[Feature] = frozenset({"max_prob", "margin", "entropy", "saturation"})
TOP = 4

Batch = Sequence[range]
"""Positions of each sequence."""
Trace = tuple[np.ndarray, list[list[Scored]]]
"""Hidden states [boundaries, tokens, hidden_size], and at each boundary what its head says of each token."""


def batches_of_1_to_64_rows() -> list[Batch]:
    """One of each size, in any order, split at random; each sequence goes on where it was."""
    pick = random.Random(0)
    at = [0 for _ in SEQUENCES]
    batches: list[Batch] = []
    for count in pick.sample(range(1, 65), 64):
        cuts = sorted(pick.choices(range(count + 1), k=len(SEQUENCES) - 1))
        shares = [b - a for a, b in pairwise([0, *cuts, count])]
        batches.append([range(start, start + share) for start, share in zip(at, shares, strict=True)])
        at = [rows.stop for rows in batches[-1]]
    return batches


TOGETHER = batches_of_1_to_64_rows()
LENGTHS = [rows.stop for rows in TOGETHER[-1]]
ALONE = [[range(p, p + (s == i)) for i in SEQUENCES] for s in SEQUENCES for p in range(LENGTHS[s])]
TOKENS = [random.Random(s).choices(range(SPEC.vocab_size), k=n) for s, n in enumerate(LENGTHS)]
TABLES = block_tables(LENGTHS, 16, 160)
SAMPLINGS = [SamplingParams(temperature=0.4 * s, top_p=1 - 0.1 * s, logprobs=3) for s in SEQUENCES]


STATES = np.random.default_rng(0).normal(0, 1, (max(LENGTHS), SPEC.hidden_size)).astype(np.float32)


def score(executor: NativeExecutor, boundary: int, rows: Sequence[ScoreRow]) -> list[Scored]:
    """What a head says where each token before has left its own of `STATES`. No row is scored together with the one
    before it, which would leave another."""
    found: dict[int, Scored] = {}
    for parity in (0, 1):
        some = [i for i, row in enumerate(rows) if row.position % 2 == parity]
        for i in some:
            if before := rows[i].position:
                executor.write_state(before - 1, rows[i].blocks, STATES[before - 1])
        found |= zip(some, executor.score(boundary, [rows[i] for i in some], NEEDS), strict=True)
    return [found[i] for i in range(len(rows))]


def trace(batches: Sequence[Batch], dtype: str, threads: int) -> Trace:
    """Run and score everything in these batches, in the order given."""
    kv_dtype = "float32" if dtype == "float32" else "float16"
    executor = NativeExecutor(
        SPEC, WEIGHTS, PACK, block_size=16, num_blocks=160, dtype=dtype, kv_dtype=kv_dtype, threads=threads
    )
    slots = [slot for n, table in zip(LENGTHS, TABLES, strict=True) for slot in slots_of(executor, range(n), table)]
    starts = [0, *accumulate(LENGTHS)]
    scores: list[list[Scored]] = [[Scored(None, {})] * starts[-1] for _ in range(TOP)]
    for batch in batches:
        rows = [SeqRows(ps, TOKENS[s][ps.start : ps.stop], TABLES[s]) for s, ps in enumerate(batch)]
        for segment in range(TOP):
            executor.run_segment(segment, rows)
        asked = [ScoreRow(p, TABLES[s], SAMPLINGS[s], seed=s) for s, ps in enumerate(batch) for p in ps]
        places = [starts[s] + p for s, ps in enumerate(batch) for p in ps]
        for boundary in range(1, TOP + 1):
            for place, scored in zip(places, score(executor, boundary, asked), strict=True):
                scores[boundary - 1][place] = scored
    hidden = [read_hidden(executor, boundary, slots) for boundary in range(1, TOP + 1)]
    return np.array(hidden), scores


BEST, *OTHERS = _native.supported_isas()
PLACES = [(BEST, 1), (BEST, 2), (BEST, 3), *((isa, 2) for isa in OTHERS)]


@cache
def alone(dtype: str) -> Trace:
    """One row at a time, on one thread."""
    _native.choose_isa(BEST)
    return trace(ALONE, dtype, threads=1)


@pytest.mark.parametrize(("isa", "threads"), PLACES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_token_is_the_same_bits_alone_and_in_any_batch(dtype: str, isa: str, threads: int) -> None:
    expected, expected_scores = alone(dtype)
    assert len({s.token for s in expected_scores[-1]}) > 50
    _native.choose_isa(isa)
    hidden, scores = trace(TOGETHER, dtype, threads)
    assert np.array_equal(hidden.view(np.uint32), expected.view(np.uint32))
    assert scores == expected_scores
