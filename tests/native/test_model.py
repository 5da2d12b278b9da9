"""The model of the core as Python sees it: what batches may be made of, what is refused."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from offramp import _native
from offramp.executors.native import NativeExecutor
from offramp.exits.pack import static_exits
from offramp.types.executor import SeqRows
from tests.executors.toys import make_toy
from tests.t5_toy import toy_t5_spec, toy_t5_weights
from tests.toy import DictSource

BLOCKS = (3, 0, 2)
TOKENS = [5, 1, 88, 5, 0, 17, 3, 3, 9]


def make_executor(threads: int = 2, num_blocks: int = 4) -> NativeExecutor:
    toy = make_toy()
    pack = static_exits((2,), toy.spec.num_layers)
    return NativeExecutor(toy.spec, toy.source, pack, block_size=4, num_blocks=num_blocks, threads=threads)


class Table(Sequence[int]):
    """A block table too long to be written out."""

    def __len__(self) -> int:
        return 2**62

    def __getitem__(self, index: Any) -> Any:
        return BLOCKS[index]


@pytest.fixture(scope="module")
def executor() -> NativeExecutor:
    return make_executor()


def hidden_after(executor: NativeExecutor, batch: Sequence[Any]) -> np.ndarray:
    executor.run_segment(0, batch)
    return np.stack([executor._model.read_hidden(1, slot) for slot in range(16)])


def test_positions_tokens_and_blocks_may_be_any_sequences_of_integers(executor: NativeExecutor) -> None:
    expected = hidden_after(executor, [SeqRows(list(range(9)), TOKENS, list(BLOCKS))])
    assert len(np.unique(expected.round(4), axis=0)) > 8
    numbers = np.arange(9)
    for batch in (
        (SeqRows(range(9), tuple(TOKENS), BLOCKS),),
        [SeqRows(numbers, np.array(TOKENS, dtype=np.int32), np.array(BLOCKS))],  # type: ignore[arg-type]
        [SeqRows((), (), ()), SeqRows(range(9), TOKENS, BLOCKS)],
        [SeqRows(range(9), TOKENS, (*BLOCKS, 99, "unread"))],  # type: ignore[arg-type]
        [SeqRows(range(9), TOKENS, Table())],
    ):
        for slot in range(16):
            executor._model.write_hidden(1, slot, np.zeros(32, dtype=np.float32))
        found = hidden_after(executor, batch)
        np.testing.assert_array_equal(found[[12, 13, 14, 15, 0, 1, 2, 3, 8]], expected[[12, 13, 14, 15, 0, 1, 2, 3, 8]])


def test_a_range_may_have_steps_and_a_batch_no_rows(executor: NativeExecutor) -> None:
    expected = hidden_after(executor, [SeqRows(range(9), TOKENS, BLOCKS)])
    for slot in (14, 8):
        executor._model.write_hidden(1, slot, np.zeros(32, dtype=np.float32))
    found = hidden_after(executor, [SeqRows(range(2, 9, 6), [TOKENS[2], TOKENS[8]], BLOCKS)])
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(hidden_after(executor, [SeqRows([], [], BLOCKS)]), expected)
    np.testing.assert_array_equal(hidden_after(executor, []), expected)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (SeqRows([-1], [0], BLOCKS), "no position -1"),
        (SeqRows([64], [0], range(17)), "no position 64"),
        (SeqRows([2**70], [0], BLOCKS), "no position"),
        (SeqRows(range(65), [0] * 65, range(17)), "more positions than the context of 64"),
        (SeqRows(range(2**50), [0], BLOCKS), "more positions"),
        (SeqRows(range(2**70), [0], BLOCKS), "more positions"),
        (SeqRows(Table(), [0], BLOCKS), "more positions"),
        (SeqRows(range(0, 2**65, 2**62), [0] * 8, BLOCKS), "no position as far"),
        (SeqRows(range(2**63 - 2, 2**63 + 2, 2), [0] * 2, BLOCKS), "no position as far"),
        (SeqRows(range(3, -(2**64), -(2**63)), [0] * 3, BLOCKS), "no position as far"),
        (SeqRows(range(2), range(2**50), BLOCKS), "as many tokens"),
        (SeqRows([1, 1], [0, 0], BLOCKS), "ascend"),
        (SeqRows([12], [0], BLOCKS), "does not reach"),
        (SeqRows([0], [-1], BLOCKS), "no token -1"),
        (SeqRows([0], [97], BLOCKS), "no token 97"),
        (SeqRows([0], [2**40], BLOCKS), "no token"),
        (SeqRows([0, 1], [0], BLOCKS), "as many tokens"),
        (SeqRows([4], [0], (0, 4)), "no block 4"),
        (SeqRows([4], [0], (-1, 0)), "no block -1"),
        ((1, 2), "SeqRows"),
        (None, "SeqRows"),
    ],
)
def test_what_does_not_exist_is_refused_before_anything_is_written(
    executor: NativeExecutor, rows: Any, message: str
) -> None:
    before = hidden_after(executor, [SeqRows(range(9), TOKENS, BLOCKS)])
    good = SeqRows([0], [55], (1,))
    with pytest.raises(ValueError, match=message):
        executor.run_segment(0, [good, rows])
    after = np.stack([executor._model.read_hidden(1, slot) for slot in range(16)])
    np.testing.assert_array_equal(after, before)


@pytest.mark.parametrize("rows", [SeqRows(["a"], [0], (0,)), SeqRows([0], 5, (0,)), SeqRows([0], [0], [1.5])])  # type: ignore[list-item, arg-type]
def test_other_types_are_type_errors(executor: NativeExecutor, rows: Any) -> None:
    with pytest.raises(TypeError):
        executor.run_segment(0, [rows])


def test_segments_boundaries_slots_and_blocks_that_do_not_exist_are_refused(executor: NativeExecutor) -> None:
    model = executor._model
    calls: list[Any] = [
        lambda: model.run_segment(-1, []),
        lambda: model.run_segment(2, []),
        lambda: model.pass_tokens(0, 1, 2, []),
        lambda: model.pass_tokens(3, 1, 2, []),
        lambda: model.pass_tokens(1, 1, 3, []),
        lambda: model.copy_blocks([(0, 4)]),
        lambda: model.copy_blocks([(-1, 0)]),
        lambda: model.read_hidden(0, 0),
        lambda: model.read_hidden(1, 16),
        lambda: model.read_kv(4, 0),
        lambda: model.write_hidden(1, 0, np.zeros(31, dtype=np.float32)),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=r"there (is|are) no|another size"):
            call()


def test_descriptions_that_do_not_fit_together_are_refused() -> None:
    data = np.zeros(4096 + 64, dtype=np.uint8)
    start = -data.ctypes.data % 64
    good = ("f32", 16, 8, data[start : start + 512])
    config: dict[str, Any] = {"hidden": 8, "intermediate": 8, "heads": 1, "kv_heads": 1, "head_dim": 8, "vocab": 16}
    config |= {"max_positions": 9, "eps": 1e-5, "frequencies": [1.0] * 4, "layers_at": [0, 1], "half_kv": True}
    config |= {"block_size": 4, "num_blocks": 2}

    def refused(message: str, embedding: Any = good, threads: int = 1, layers: Any = (), **changed: Any) -> None:
        with pytest.raises(ValueError, match=message):
            _native.Model({**config, **changed}, embedding, layers, [], threads)

    refused("bytes", ("f32", 16, 8, data[start : start + 511]))
    refused("bytes", ("i8", 16, 8, data[start : start + 512]))
    refused("aligned", ("f32", 16, 8, data[start + 4 : start + 516]))
    refused("contiguous", ("f32", 16, 8, data[start : start + 1024 : 2]))
    refused("no weight type", ("f64", 16, 8, good[3]))
    refused("possible size", ("f32", 2**40, 8, good[3]))
    refused("too large", ("f32", 2**31 - 1, 2**31 - 1, good[3]))
    refused("threads", threads=0)
    refused("vocab must be 1 to 2147483647, not 0", vocab=0)
    refused("block_size must be 1 to 2147483647, not 2147483648", block_size=2**31)
    refused("embedding is", vocab=17)
    refused("multiple", heads=3, kv_heads=2)
    refused("even", head_dim=7)
    refused("frequency", frequencies=[1.0])
    refused("layers_at")
    refused("qkv is missing", layers=[{}])


def noted(monkeypatch: pytest.MonkeyPatch) -> tuple[Any, list[Any]]:
    """What makes models of the core, and a list that the arguments of the next one will be in."""
    given: list[Any] = []
    make = _native.Model

    def note(*arguments: Any) -> Any:
        given.extend(arguments)
        return make(*arguments)

    monkeypatch.setattr(_native, "Model", note)
    return make, given


def test_an_encoder_that_does_not_fit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    make, given = noted(monkeypatch)
    spec = toy_t5_spec(2)
    NativeExecutor(spec, DictSource(toy_t5_weights(spec)), static_exits((), 2), block_size=4, num_blocks=4)
    config, embedding, layers, heads, threads, encoder = given
    first, layer = encoder["layers"][0], layers[0]

    def refused(message: str, of: Any = encoder, layers: Any = layers, **changed: Any) -> None:
        with pytest.raises(ValueError, match=message):
            make({**config, **changed}, embedding, layers, heads, threads, of)

    odd = np.zeros(6, dtype=np.float32)
    refused("odd number of offsets", bias=odd)
    refused("the encoder's bias must have an odd", {**encoder, "bias": odd})
    refused("the encoder's norm has 6 values", {**encoder, "norm": odd})
    refused("max_length must be 1 to", {**encoder, "max_length": 0})
    refused("num_blocks of sources must be 1 to", {**encoder, "num_blocks": 2**31})
    refused("`layers` is missing", {**encoder, "layers": None})
    refused("encoder layer 0: qkv is missing", {**encoder, "layers": [{}]})
    refused("encoder layer 0: it attends to its whole source", {**encoder, "layers": [{**first, "window": 3}]})
    refused("layer 1: cross_kv is missing", layers=[layer, {**layers[1], "cross_kv": None}])
    refused("layer 0: there is no source to attend to", None)
    refused("layer 0: K of a source has neither", layers=[{**layer, "k_norm": odd}, layers[1]])
    refused("layer 0: cross_norm has 0 values", layers=[{**layer, "cross_norm": odd[:0]}, layers[1]])
    refused("`activation` must be silu, gelu or relu, not `tanh`", activation="tanh")
    refused("gate_up is", activation="relu")


def test_arrays_of_a_model_are_kept_alive() -> None:
    executor = make_executor()
    expected = hidden_after(executor, [SeqRows(range(9), TOKENS, BLOCKS)])
    gc.collect()
    waste = [np.full(1 << 16, 255, dtype=np.uint8) for _ in range(100)]
    np.testing.assert_array_equal(hidden_after(executor, [SeqRows(range(9), TOKENS, BLOCKS)]), expected)
    assert len(waste) == 100


def test_the_buffers_of_a_model_cannot_be_taken_away(monkeypatch: pytest.MonkeyPatch) -> None:
    make, given = noted(monkeypatch)
    make_executor()
    config, (kind, n, k, data), layers, heads, threads, _ = given
    memory = bytearray(data.nbytes + 64)
    start = -np.frombuffer(memory, dtype=np.uint8).ctypes.data % 64
    memory[start : start + data.nbytes] = data.tobytes()
    view = memoryview(memory)[start : start + data.nbytes]
    model = make(config, (kind, n, k, view), layers, heads, threads)
    with pytest.raises(BufferError):
        view.release()
    del model
    gc.collect()
    view.release()


def test_timings_are_measured_when_asked_for(executor: NativeExecutor) -> None:
    batch = [SeqRows(range(9), TOKENS, BLOCKS)]
    executor._model.time(True)
    executor.run_segment(0, batch)
    measured = executor._model.timings()
    assert set(measured) == {"norm", "product", "attention", "other"}
    assert all(0 < seconds < 5 for seconds in measured.values())
    executor._model.time(False)
    executor.run_segment(0, batch)
    assert not any(executor._model.timings().values())
