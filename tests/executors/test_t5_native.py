"""T5 on the native executor: against torch on the weights it computes with, and the same bits in any company."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch

from offramp import _native
from offramp.executors.native import DTYPES, KV_DTYPES, NativeExecutor
from offramp.executors.torch import TorchExecutor
from offramp.exits.pack import static_exits
from offramp.types.executor import Executor, ScoreRow, SeqRows, Source, SourceRows
from offramp.types.sampling import SamplingParams
from tests.executors.kinds import read_hidden, read_kv, read_source, slots_of
from tests.executors.native import dequantised
from tests.executors.t5_toys import encode_all
from tests.executors.test_native_dtypes import tolerance
from tests.executors.toys import block_tables, every_log_prob, run_in_random_chunks
from tests.t5_toy import toy_t5_spec, toy_t5_weights
from tests.toy import DictSource

SPECS = {"gated": toy_t5_spec(gated=True), "tied": toy_t5_spec(gated=False)}
WEIGHTS = {name: DictSource(toy_t5_weights(spec)) for name, spec in SPECS.items()}
VOCAB = SPECS["tied"].vocab_size
ALL = SamplingParams(logprobs=VOCAB)
LENGTHS, SOURCES = (1, 9, 33), (20, 1, 37)


def texts_of(lengths: tuple[int, ...], seed: int) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, VOCAB, n).tolist() for n in lengths]


def native(name: str = "tied", **options: Any) -> NativeExecutor:
    sizes: dict[str, Any] = {"block_size": 4, "num_blocks": 96, "num_source_blocks": 64}
    return NativeExecutor(SPECS[name], WEIGHTS[name], static_exits((2, 4), 6), **{**sizes, **options})


def log_probs(executor: Executor) -> list[torch.Tensor]:
    """At every exit and the top, for every position of every output, written in random chunks."""
    tables, sources = block_tables(LENGTHS, 4, 48), encode_all(executor, texts_of(SOURCES, 2))
    run_in_random_chunks(executor, texts_of(LENGTHS, 1), tables, 1, sources)
    pairs = product(zip(LENGTHS, tables, strict=True), (1, 2, 3))
    return [every_log_prob(executor, boundary, n, table, ALL) for (n, table), boundary in pairs]


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize(("dtype", "kv_dtype"), list(product(DTYPES, KV_DTYPES)))
def test_every_type_against_torch_on_the_same_weights(name: str, dtype: str, kv_dtype: str) -> None:
    ours = log_probs(native(name, dtype=dtype, kv_dtype=kv_dtype, threads=2))
    same, exits = dequantised(SPECS[name], WEIGHTS[name], dtype), static_exits((2, 4), 6)
    sizes: dict[str, Any] = {"block_size": 4, "num_blocks": 48, "num_source_blocks": 64}
    theirs = log_probs(TorchExecutor(SPECS[name], same, exits, dtype="float64", **sizes))
    for own, exact in zip(ours, theirs, strict=True):
        torch.testing.assert_close(own, exact, rtol=0, atol=2 * tolerance(dtype, kv_dtype))  # scores are not scaled


@pytest.fixture(params=_native.supported_isas())
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    """An instruction set in use."""
    used = _native.isa()
    _native.choose_isa(request.param)
    yield request.param
    _native.choose_isa(used)


COUNT = 64
OUTPUTS, TEXTS = texts_of((5,) * COUNT, 3), texts_of(tuple(1 + 7 * i % 23 for i in range(COUNT)), 4)
PLACES = block_tables([5] * COUNT, 4, 128)
SOURCE_PLACES = block_tables([len(text) for text in TEXTS], 4, 256, seed=1)
PASSED = 2
"""The token of each output that is filled above the first exit."""


def written(executor: NativeExecutor, count: int) -> list[np.ndarray]:
    """All that is left of the outputs, `count` at a time."""
    for first in range(0, COUNT, count):
        some = range(first, min(first + count, COUNT))
        executor.encode([SourceRows(TEXTS[i], SOURCE_PLACES[i]) for i in some])
        sources = {i: Source(len(TEXTS[i]), SOURCE_PLACES[i]) for i in some}
        for position in range(5):
            rows = [SeqRows([position], [OUTPUTS[i][position]], PLACES[i], sources[i]) for i in some]
            executor.run_segment(0, rows)
            if position == PASSED:
                executor.pass_tokens(1, range(1, 3), rows)
                continue
            executor.run_segment(1, rows)
            executor.run_segment(2, rows)
    slots = [slot for table in PLACES for slot in slots_of(executor, range(5), table)]
    read = [slot for i in range(COUNT) for slot in slots_of(executor, range(len(TEXTS[i])), SOURCE_PLACES[i])]
    layers = range(6)
    kv = [x for layer in layers for x in (*read_kv(executor, layer, slots), *read_source(executor, layer, read))]
    return [*(read_hidden(executor, boundary, slots) for boundary in (1, 2, 3)), *kv]


@pytest.mark.parametrize("dtype", DTYPES)
def test_no_bit_depends_on_how_many_go_together_on_threads_or_instruction_set(dtype: str, isa: str) -> None:
    sizes: dict[str, Any] = {"num_blocks": 128, "num_source_blocks": 256, "dtype": dtype}
    expected = EXPECTED.setdefault(dtype, written(native(threads=1, **sizes), 1))
    for count, threads in ((1, 2), (2, 1), (3, 3), (7, 1), (16, 2), (33, 1), (64, 2)):
        for ours, alone in zip(written(native(threads=threads, **sizes), count), expected, strict=True):
            assert np.array_equal(ours, alone) and np.isfinite(ours).all()


EXPECTED: dict[str, list[np.ndarray]] = {}
"""By type of weights, as the first instruction set gave it."""

GOOD = SeqRows([0], [3], [1], Source(2, [5]))
REFUSED: dict[str, tuple[str, Callable[[NativeExecutor], object]]] = {
    "a source token outside the vocabulary": ("no token 48", lambda e: e.encode([SourceRows([48], [0])])),
    "a negative source token": ("no token -1", lambda e: e.encode([SourceRows([-1], [0])])),
    "a source beyond the longest": (
        "has 25 tokens; the longest has 24",
        lambda e: e.encode([SourceRows([1] * 25, [0] * 7)]),
    ),
    "a source without end": ("the longest has 24", lambda e: e.encode([SourceRows(range(2**50), [0])])),
    "a source beyond its blocks": ("does not reach", lambda e: e.encode([SourceRows([1] * 5, [0])])),
    "a block outside the store of sources": ("no block 64", lambda e: e.encode([SourceRows([1], [64])])),
    "a negative block": ("no block -1", lambda e: e.encode([SourceRows([1], [-1])])),
    "rows in place of sources": ("must be made of `SourceRows`", lambda e: e.encode([GOOD])),  # type: ignore[list-item]
    "no source": ("1 to 24 tokens, not 0", lambda e: e.run_segment(0, [GOOD._replace(source=None)])),
    "an empty source": ("1 to 24 tokens, not 0", lambda e: e.run_segment(0, [GOOD._replace(source=Source(0, []))])),
    "a negative length": (
        "1 to 24 tokens, not -1",
        lambda e: e.run_segment(0, [GOOD._replace(source=Source(-1, [0]))]),
    ),
    "a length beyond the longest": ("not 25", lambda e: e.run_segment(0, [GOOD._replace(source=Source(25, [0] * 7))])),
    "a length without end": ("1 to 24", lambda e: e.run_segment(0, [GOOD._replace(source=Source(2**80, [0]))])),
    "a length beyond the blocks": ("not reach", lambda e: e.run_segment(0, [GOOD._replace(source=Source(5, [0]))])),
    "a source in no block": ("no block 64", lambda e: e.run_segment(0, [GOOD._replace(source=Source(1, [64]))])),
    "a source that is none": ("must be a `Source`", lambda e: e.run_segment(1, [GOOD._replace(source=(1,))])),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("what", REFUSED)
def test_bad_sources_are_refused_and_nothing_is_written(what: str) -> None:
    executor = native(max_source_len=24, threads=1)
    executor.encode([SourceRows([1, 2], [5])])
    executor.run_segment(0, [GOOD])

    def state() -> list[np.ndarray]:
        sources = [x for layer in range(6) for x in read_source(executor, layer, range(256))]
        return [*sources, *read_kv(executor, 0, range(384)), read_hidden(executor, 1, range(384))]

    before = state()
    message, call = REFUSED[what]
    with pytest.raises(ValueError, match=message):
        call(executor)
    assert all(np.array_equal(a, b) for a, b in zip(state(), before, strict=True))


def test_a_pass_reads_no_source_and_an_empty_one_needs_no_blocks() -> None:
    executor = native(threads=1)
    executor.encode([SourceRows([1, 2], [5]), SourceRows([], [])])
    executor.run_segment(0, [GOOD, SeqRows([], [], [], None)])
    executor.pass_tokens(1, range(1, 3), [GOOD._replace(source=None)])
    assert np.any(read_kv(executor, 5, [4])[0])


def test_without_an_encoder_nothing_is_encoded() -> None:
    from tests.executors.test_native_executor import make

    with pytest.raises(ValueError, match="there is no encoder"):
        make().encode([SourceRows([1], [0])])


def test_heads_at_exits_score_as_the_top_does() -> None:
    """The LM head's scale is part of an exit that shares it, whatever its classifier reads."""
    executor = native(dtype="float32", kv_dtype="float32", threads=1)
    executor.encode([SourceRows([1, 2], [5])])
    for segment in range(3):
        executor.run_segment(segment, [GOOD])
    for boundary in (1, 2):
        executor._model.write_hidden(boundary, 4, executor._model.read_hidden(3, 4))
    rows = [ScoreRow(0, [1], ALL, 0)]
    first, second, top = (executor.score(boundary, rows, frozenset())[0] for boundary in (1, 2, 3))
    assert first == second == top
