"""An executor's options, shape and paged store."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from offramp.errors import InvalidParameter, PackError
from offramp.exits.pack import Base, ExitPack, ExitSpec, norm_fingerprint
from offramp.types.executor import Executor, SeqRows
from tests.executors.kinds import read_hidden, read_kv, write_hidden
from tests.executors.toys import Toy, block_tables, every_log_prob, make_toy, random_prompts, run_all


@pytest.fixture(scope="module")
def toy(kind: str) -> Toy:
    return make_toy(kind=kind)


def test_it_is_an_executor_of_the_model_s_shape(toy: Toy) -> None:
    executor: Executor = toy.executor((1, 3), max_model_len=40)
    executor.synchronize()
    assert isinstance(executor, Executor)
    shape = executor.shape
    assert (shape.num_layers, shape.exit_layers, shape.max_model_len) == (4, (1, 3), 40)
    assert (shape.vocab_size, shape.block_size, shape.num_blocks) == (97, 4, 48)
    assert shape.eos_token_ids == toy.spec.eos_token_ids


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"dtype": "int16"}, "`dtype` cannot be 'int16'"),
    ({"block_size": 0}, "`block_size` must be a whole number of at least 1 and at most 2147483647, not 0"),
    ({"num_blocks": 0}, "`num_blocks` must be a whole number of at least 1 and at most 2147483647, not 0"),
    ({"max_model_len": 65}, "`max_model_len` must be a whole number of at least 1 and at most 64, not 65"),
]


REFUSED_BY: dict[str, list[tuple[dict[str, Any], str]]] = {
    "torch": [
        ({"dtype": "float16"}, "`dtype` cannot be 'float16'"),
        ({"device": "tpu"}, "there is no device `tpu` here; there is `cpu`"),
        ({"device": "cpu:x"}, "there is no device `cpu:x` here; there is `cpu`"),
    ],
    "native": [
        ({"dtype": "float64"}, "`dtype` cannot be 'float64'"),
        ({"kv_dtype": "int8"}, "`kv_dtype` cannot be 'int8'"),
        ({"threads": 0}, "`threads` must be a whole number of at least 1 and at most 1024, not 0"),
    ],
}


def test_refused_options(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    for options, message in [*REFUSED, *REFUSED_BY[toy.kind]]:
        with pytest.raises(InvalidParameter) as error:
            toy.executor(**{**({"device": "cpu"} if toy.kind == "torch" else {}), **options})
        assert error.value.message == message


def test_a_store_beyond_memory_is_refused(toy: Toy) -> None:
    most = 2**31 - 1
    with pytest.raises(InvalidParameter, match=f" of {most * most} tokens .*cannot be had") as error:
        toy.executor(block_size=most, num_blocks=most)
    assert error.value.param == "kv_tokens" and error.value.hint is not None


def test_the_fingerprint_of_the_final_norm_tells_models_apart(toy: Toy) -> None:
    norm = toy.source.arrays["model.norm.weight"]
    good = ExitPack("x", Base(4, 32, 97, fingerprint=norm_fingerprint(norm)), (ExitSpec(2),))
    assert toy.executor(good).shape.exit_layers == (2,)
    with pytest.raises(PackError) as error:
        toy.executor(ExitPack("x", Base(4, 32, 97, fingerprint=norm_fingerprint(norm + 1)), (ExitSpec(2),)))
    assert error.value.message == "the exit pack was made for another model: its fingerprint is not this model's"


def test_a_copied_block_serves_in_place_of_the_original(toy: Toy) -> None:
    executor, prompt = toy.executor(), random_prompts([8])[0]
    executor.run_segment(0, [SeqRows(range(7), prompt[:7], [3, 9])])
    executor.copy_blocks([(3, 20), (9, 21)])
    run_all(executor, [random_prompts([8], seed=1)[0]], [[3, 9]])
    executor.run_segment(0, [SeqRows([7], [prompt[7]], [20, 21])])
    for segment in (1, 2):
        executor.run_segment(segment, [SeqRows(range(8), prompt, [20, 21])])
    ours = every_log_prob(executor, 3, 8, [20, 21])
    torch.testing.assert_close(ours, toy.log_probs(prompt, 4), rtol=0, atol=toy.tolerance(1e-9))


def test_copies_read_every_source_before_they_write(toy: Toy) -> None:
    executor = toy.executor()
    marks = np.repeat(np.arange(12.0)[:, None], 32, axis=1)
    for boundary in (1, 2, 3):
        write_hidden(executor, boundary, range(12), marks)
    executor.copy_blocks([(0, 1), (1, 2)])
    for boundary in (1, 2, 3):
        copied = read_hidden(executor, boundary, range(12))
        assert copied[:, 0].tolist() == copied[:, 31].tolist() == [0, 1, 2, 3] * 2 + [4, 5, 6, 7]


def test_empty_work_is_allowed(toy: Toy) -> None:
    executor = toy.executor()
    run_all(executor, [[1, 2, 3]], [[0]])
    before = [read_kv(executor, layer, range(8)) for layer in range(4)]
    executor.run_segment(0, [])
    executor.run_segment(1, [SeqRows([], [], [])])
    executor.pass_tokens(1, range(1, 3), [])
    executor.copy_blocks([])
    assert executor.score(1, [], frozenset()) == []
    after = [read_kv(executor, layer, range(8)) for layer in range(4)]
    assert np.array_equal(before, after) and np.any(before)


def test_a_sequence_that_is_not_finite_harms_no_other(toy: Toy) -> None:
    """Its NaN lie in blocks that a shorter sequence of the same bucket is padded over, or gets later."""
    executor, prompts = toy.executor(), random_prompts([4, 12])
    spoil(executor)
    tables = block_tables([4, 12], 4, 48)
    run_all(executor, prompts, tables)
    rows = [SeqRows([3], [prompts[0][3]], tables[0]), SeqRows([11], [prompts[1][11]], tables[1])]
    for segment in range(3):
        executor.run_segment(segment, rows)
    for prompt, table in zip(prompts, tables, strict=True):
        ours = every_log_prob(executor, 3, len(prompt), table)
        torch.testing.assert_close(ours, toy.log_probs(prompt, 4), rtol=0, atol=toy.tolerance(1e-9))


def spoil(executor: Executor) -> None:
    """Fill the store with NaN: K and V of every layer, and all hidden states."""
    shape = executor.shape
    slots = range(shape.num_blocks * shape.block_size)
    for boundary in range(1, shape.num_segments + 1):
        write_hidden(executor, boundary, slots, np.full((len(slots), 32), math.nan))
    for block in range(shape.num_blocks):
        executor.pass_tokens(1, range(shape.num_segments), [SeqRows(range(4), [], [block])])
    assert all(np.isnan(part).all() for layer in range(4) for part in read_kv(executor, layer, slots))
