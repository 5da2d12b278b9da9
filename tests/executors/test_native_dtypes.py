"""The native executor against torch in float64 on the weights it computes with, type by type, end to end.

Tolerances are on log-probabilities. Weights are compared after rounding, so what is left is the rounding of
activations: float32 sums, 16-bit activations under integer weights, and K and V of half precision where asked for.
"""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch

from offramp.executors.native import DTYPES, KV_DTYPES, NativeExecutor
from offramp.executors.torch import TorchExecutor
from offramp.types.executor import Executor, SeqRows
from offramp.types.sampling import SamplingParams
from tests.executors.kinds import read_kv, write_hidden
from tests.executors.native import dequantised
from tests.executors.toys import block_tables, every_log_prob, run_in_random_chunks
from tests.toy import DictSource, toy_pack, toy_spec, toy_weights

TOY = toy_spec(6)
PACK = toy_pack(TOY)
WEIGHTS = DictSource(toy_weights(TOY))
LENGTHS = (1, 9, 33)
PROMPTS = [[(7 * i + 3 * n) % TOY.vocab_size for i in range(n)] for n in LENGTHS]
ALL = SamplingParams(logprobs=TOY.vocab_size)


def tolerance(dtype: str, kv_dtype: str) -> float:
    """On log-probabilities of up to 12 nats."""
    if kv_dtype == "float16":
        return 1e-2
    return 1e-3 if dtype.startswith("int") else 2e-5


def log_probs(executor: Executor) -> list[torch.Tensor]:
    """At the top, for every position of every prompt, written in random chunks."""
    tables = block_tables(LENGTHS, 4, 48)
    run_in_random_chunks(executor, PROMPTS, tables, seed=1)
    return [every_log_prob(executor, 4, n, table, ALL) for n, table in zip(LENGTHS, tables, strict=True)]


@pytest.mark.parametrize(("dtype", "kv_dtype"), list(product(DTYPES, KV_DTYPES)))
def test_every_type_against_torch_on_the_same_weights(dtype: str, kv_dtype: str) -> None:
    native = NativeExecutor(TOY, WEIGHTS, PACK, block_size=4, num_blocks=48, dtype=dtype, kv_dtype=kv_dtype, threads=2)
    same = dequantised(TOY, WEIGHTS, dtype)
    reference = TorchExecutor(TOY, same, PACK, block_size=4, num_blocks=48, dtype="float64")
    for ours, theirs in zip(log_probs(native), log_probs(reference), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=tolerance(dtype, kv_dtype))


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_pass_is_what_the_unrounded_weights_give(dtype: str) -> None:
    """Passing matrices are rounded once, from the source: under int4 they are nearer to it than the layers are."""
    native = NativeExecutor(TOY, WEIGHTS, PACK, block_size=4, num_blocks=48, dtype=dtype, kv_dtype="float32")
    reference = TorchExecutor(TOY, WEIGHTS, PACK, block_size=4, num_blocks=48, dtype="float64")
    hidden = np.random.default_rng(0).standard_normal((16, TOY.hidden_size)).astype(np.float32)
    allowed = {"float32": 1e-6, "float16": 1e-3, "bfloat16": 1e-3}.get(dtype, 1e-2)
    for executor in (native, reference):
        write_hidden(executor, 1, range(16), hidden)
        executor.pass_tokens(1, range(1, 4), [SeqRows(range(16), [], [0, 1, 2, 3])])
    for layer in range(2, 6):
        pairs = zip(read_kv(native, layer, range(16)), read_kv(reference, layer, range(16)), strict=True)
        assert all(0 < np.linalg.norm(ours - exact) < allowed * np.linalg.norm(exact) for ours, exact in pairs)
