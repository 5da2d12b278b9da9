"""What the store holds after a run: recompute equals one full pass, lazy fill equals eager fill.

In float64 to 1e-10; on the native executor, of whatever type, bit for bit, since no sum depends on what is computed
together.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from offramp.engine.engine import Engine
from offramp.engine.request import TokenEvent
from offramp.types.executor import SeqRows
from offramp.types.exits import ExitParams
from tests.engine.toy_engine import Chosen, Run, make_engine, request
from tests.executors.kinds import read_kv, slots_of

pytestmark = pytest.mark.usefixtures("each_executor")

PROMPT = (5, 6, 7, 8, 9)
RECOMPUTE = ExitParams(threshold=0.3, kv="recompute", recompute_cap=4)
LAZY = ExitParams(threshold=0.3)
EAGER = replace(LAZY, fill_when="iteration")


class Kept:
    """A run of one request whose blocks are read just before they are given back."""

    def __init__(self, engine: Any, exit: ExitParams | None, **sampling: Any) -> None:
        (number,) = engine.submit(request(PROMPT, exit, max_tokens=30, **sampling))
        sequence = engine.sequences[number]
        finish = engine._finish
        self.exits = 0

        def keep(*args: Any) -> None:
            assert sequence.lease is not None
            self.tokens, self.blocks = list(sequence.tokens), list(sequence.lease.blocks)
            self.frontier = list(sequence.frontier)
            engine._finish = finish
            finish(*args)

        engine._finish = keep
        while engine.has_work:
            self.exits += sum(e.exit_layer < 8 for e in engine.step().events)
        self.engine: Engine = engine

    def kv(self, segment: int) -> np.ndarray:
        """K and V [layers of the segment, 2, frontier, kv_heads * head_dim]."""
        return stored(self.engine, segment, self.blocks, self.frontier[segment])


def stored(engine: Engine, segment: int, blocks: list[int], count: int) -> np.ndarray:
    """K and V of the first `count` positions of a sequence."""
    slots = slots_of(engine.executor, range(count), blocks)
    layers = range(*engine.executor.shape.layers_at[segment : segment + 2])
    return np.array([read_kv(engine.executor, layer, slots) for layer in layers])


def check_equal(ours: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-10 if Chosen.kind == "torch" else 0)


@pytest.mark.parametrize("sizes", [{}, {"max_num_batched_tokens": 2, "max_num_seqs": 2, "block_size": 1}])
def test_after_recompute_kv_equals_one_full_pass_over_the_same_tokens(sizes: dict[str, Any]) -> None:
    run = Kept(make_engine(**sizes), RECOMPUTE)
    assert run.exits >= 5 and min(run.frontier) > len(PROMPT) + 5
    whole = make_engine(block_size=64)
    rows = [SeqRows(range(len(run.tokens)), run.tokens, [0])]
    for segment in range(4):
        whole.executor.run_segment(segment, rows)
        check_equal(run.kv(segment), stored(whole, segment, [0], run.frontier[segment]))


@pytest.mark.parametrize("seed", range(4))
def test_filling_lazily_and_every_iteration_give_the_same_tokens_and_kv(seed: int) -> None:
    lazy = Kept(make_engine(), LAZY, temperature=0.9, seed=seed)
    eager = Kept(make_engine(), EAGER, temperature=0.9, seed=seed)
    assert lazy.tokens == eager.tokens and lazy.exits == eager.exits >= 5
    assert lazy.frontier[3] > len(PROMPT) + 5
    assert eager.frontier >= lazy.frontier
    for segment in range(4):
        count = min(lazy.frontier[segment], eager.frontier[segment])
        check_equal(lazy.kv(segment)[:, :, :count], eager.kv(segment)[:, :, :count])


def test_filled_kv_is_not_that_of_a_full_pass() -> None:
    run = Kept(make_engine(), LAZY, temperature=0.9, seed=3)
    whole = make_engine(block_size=64)
    for segment in range(4):
        whole.executor.run_segment(segment, [SeqRows(range(len(run.tokens)), run.tokens, [0])])
    assert not np.allclose(run.kv(3), stored(whole, 3, [0], run.frontier[3]), rtol=0, atol=1e-3)


def test_a_prompt_found_in_the_prefix_cache_after_a_filled_run_gives_exact_outputs() -> None:
    engine = make_engine()
    run = Kept(engine, LAZY)
    again = engine.submit(request(run.tokens[:20]))[0]
    events: list[TokenEvent] = []
    while engine.has_work:
        events += engine.step().events
    fresh = Run(make_engine(), [request(run.tokens[:20])])
    assert [e.token for e in events] == fresh.tokens()
    assert 0 < engine.sequences[again].cached_prompt_tokens < 20
