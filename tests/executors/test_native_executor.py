"""What the native executor promises beyond the protocol: heads of the same weights, and no harm from bad input."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from offramp.errors import InvalidParameter
from offramp.executors.native import NativeExecutor
from offramp.exits.pack import Base, ExitPack, ExitSpec
from offramp.types.executor import Scored, ScoreRow, SeqRows
from offramp.types.sampling import SamplingParams
from tests.executors.kinds import read_kv
from tests.executors.toys import run_all
from tests.toy import DictSource, toy_pack, toy_spec, toy_weights

SPEC = toy_spec(6)
PACK = toy_pack(SPEC)
WEIGHTS = DictSource(toy_weights(SPEC))
PROMPT = [(11 * i) % SPEC.vocab_size for i in range(30)]
TABLE = [5, 0, 3, 7, 1, 6, 2, 4]
ALL = SamplingParams(logprobs=SPEC.vocab_size)


def make(pack: ExitPack = PACK, dtype: str = "int8") -> NativeExecutor:
    return NativeExecutor(SPEC, WEIGHTS, pack, block_size=4, num_blocks=8, dtype=dtype, threads=1)


def score(executor: NativeExecutor, boundary: int, sampling: SamplingParams = ALL) -> list[Scored]:
    return executor.score(boundary, [ScoreRow(p, TABLE, sampling, seed=1) for p in range(len(PROMPT))], frozenset())


@pytest.mark.parametrize("dtype", ["float32", "int8", "int4"])
def test_a_reduced_vocabulary_scores_with_the_same_weights(dtype: str) -> None:
    ids = (1, 2, 15, 16, 17, 31, 40)
    pack = ExitPack("x", Base(6, 16, 48), (ExitSpec(2), ExitSpec(4, vocabulary="few")), {"few": ids})
    executor = make(pack, dtype)
    run_all(executor, [PROMPT], [TABLE])
    for position in range(len(PROMPT)):
        slot = TABLE[position // 4] * 4 + position % 4
        executor._model.write_hidden(1, slot, executor._model.read_hidden(2, slot))
    for whole, few in zip(score(executor, 1), score(executor, 2), strict=True):
        assert whole.logprobs is not None and few.logprobs is not None
        logits, some = dict(whole.logprobs), dict(few.logprobs)
        assert sorted(some) == list(ids)
        shift = logits[ids[0]] - some[ids[0]]
        assert {t: some[t] + shift for t in ids} == pytest.approx({t: logits[t] for t in ids}, abs=1e-5)


REFUSED: dict[str, Callable[[NativeExecutor], object]] = {
    "a token outside the vocabulary": lambda e: e.run_segment(0, [SeqRows([0], [48], [0])]),
    "a negative token": lambda e: e.run_segment(0, [SeqRows([0], [-1], [0])]),
    "a position outside the context": lambda e: e.run_segment(0, [SeqRows([64], [1], [0] * 17)]),
    "a negative position": lambda e: e.run_segment(0, [SeqRows([-1], [1], [0])]),
    "a position outside the block table": lambda e: e.run_segment(0, [SeqRows([4], [1], [0])]),
    "a block outside the store": lambda e: e.run_segment(0, [SeqRows([0], [1], [8])]),
    "a negative block": lambda e: e.run_segment(0, [SeqRows([0], [1], [-1])]),
    "fewer tokens than positions": lambda e: e.run_segment(0, [SeqRows([0, 1], [1], [0])]),
    "a segment that is not there": lambda e: e.run_segment(4, [SeqRows([0], [1], [0])]),
    "a pass from nowhere": lambda e: e.pass_tokens(5, range(1, 4), [SeqRows([0], [], [0])]),
    "a pass of segments that are not there": lambda e: e.pass_tokens(1, range(1, 5), [SeqRows([0], [], [0])]),
    "a score outside the store": lambda e: e.score(4, [ScoreRow(0, [9], ALL, 0)], frozenset()),
    "a copy outside the store": lambda e: e.copy_blocks([(0, 8)]),
    "a number that is none": lambda e: e.run_segment(0, [SeqRows([0], ["a"], [0])]),  # type: ignore[list-item]
}


@pytest.mark.parametrize("what", REFUSED)
def test_bad_input_is_refused_and_nothing_is_written(what: str) -> None:
    executor = make()
    run_all(executor, [PROMPT], [TABLE])
    before = [read_kv(executor, layer, range(32)) for layer in range(6)]
    with pytest.raises((ValueError, TypeError, IndexError)):
        REFUSED[what](executor)
    assert np.array_equal([read_kv(executor, layer, range(32)) for layer in range(6)], before)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"threads": 0}, "`threads` must be a whole number of at least 1 and at most 1024, not 0"),
        ({"threads": 2000}, "`threads` must be a whole number of at least 1 and at most 1024, not 2000"),
        ({"threads": 10**11}, "`threads` must be a whole number of at least 1 and at most 1024, not 100000000000"),
        ({"block_size": 2**31}, "`block_size` must be a whole number of at least 1 and at most 2147483647, not "),
        ({"num_blocks": 10**14}, "`num_blocks` must be a whole number of at least 1 and at most 2147483647, not "),
    ],
)
def test_an_option_outside_its_range_is_refused(option: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidParameter) as error:
        NativeExecutor(SPEC, WEIGHTS, PACK, **{"block_size": 4, "num_blocks": 8, **option})
    assert str(error.value).startswith(message) and error.value.param == next(iter(option))


@pytest.mark.parametrize("kv_dtype", ["float16", "float32"])
def test_a_store_beyond_memory_is_refused_with_its_size(kv_dtype: str) -> None:
    most = 2**31 - 1
    with pytest.raises(InvalidParameter) as error:
        NativeExecutor(SPEC, WEIGHTS, PACK, block_size=most, num_blocks=most, kv_dtype=kv_dtype)
    kv = 2 * SPEC.num_layers * SPEC.num_kv_heads * SPEC.head_dim * (2 if kv_dtype == "float16" else 4)
    size = most * most * (kv + (len(PACK.layers) + 1 + PACK.reads_past) * SPEC.hidden_size * 4)
    assert error.value.message == f"the KV cache of {most * most} tokens needs {size} bytes, which cannot be had"
    assert error.value.param == "kv_tokens" and error.value.hint is not None
    assert error.value.hint.startswith("lower `kv_tokens`")
