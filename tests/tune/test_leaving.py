"""Tokens that leave in training: as `fill` serves them, and only those that an exit is sure of."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch

from offramp.tune.batches import batches
from offramp.tune.leaving import Leaving
from offramp.types.executor import SeqRows
from tests.executors.kinds import read_hidden, slots_of
from tests.executors.toys import make_toy
from tests.tune.test_dense import dense, some_ids
from tests.tune.test_layerskip import LAYERS, make, task
from tests.tune.test_loss import SPEC


def test_hidden_states_are_those_of_an_executor_that_fills() -> None:
    toy, ids = make_toy(dtype=torch.float32), some_ids(1)
    left = torch.zeros((1, 20), dtype=torch.bool)
    left[0, [6, 7, 11, 12, 13, 18]] = True
    low, top = dense(toy).run(ids, (2, 4), leave=lambda layer, hidden: left)
    executor, table = toy.executor((2,), dtype="float32"), list(range(5))
    tokens, passing = ids[0].tolist(), left[0].nonzero().flatten().tolist()
    staying = [p for p in range(20) if p not in passing]
    executor.run_segment(0, [SeqRows(range(20), tokens, table)])
    executor.pass_tokens(1, range(1, 2), [SeqRows(passing, (), table)])
    executor.run_segment(1, [SeqRows(staying, (), table)])
    expected = read_hidden(executor, 2, slots_of(executor, staying, table))
    np.testing.assert_allclose(top[0, staying].detach(), expected, rtol=1e-3, atol=1e-4)
    assert torch.equal(top[left], low[left])


def test_the_first_token_of_an_answer_stays_and_what_has_left_is_not_learnt_from() -> None:
    samples = task(12)
    trainer = make(samples)
    (batch,) = batches(samples, range(12))
    hidden = [
        torch.randn((*batch.ids.shape, SPEC.hidden_size), generator=torch.Generator().manual_seed(e)) for e in LAYERS
    ]
    for states in hidden:
        states *= 40  # sure of something
    leaving = Leaving(trainer._heads, batch, 1.0, [0])
    after = [leaving(layer, states) for layer, states in zip(LAYERS, hidden, strict=True)]
    assert all((later | earlier).equal(later) for earlier, later in pairwise(after))
    gone, stayed = after[-1].flatten()[batch.rows], leaving.stayed(batch)
    assert int(gone.sum()) > 0 and stayed.rows.equal(batch.rows[~gone]) and stayed.next.equal(batch.next[~gone])
    width = batch.ids.shape[1]
    first = [line * width + samples[n].prompt_tokens - 1 for line, n in enumerate(batch.numbers)]
    assert not after[-1].flatten()[first].any()
    outside = torch.ones(after[-1].numel(), dtype=torch.bool)
    outside[batch.rows] = False
    assert not after[-1].flatten()[outside].any()


def test_nobody_leaves_where_none_is_asked_to_or_no_exit_is_sure() -> None:
    samples = task(12)
    trainer = make(samples)
    (batch,) = batches(samples, range(12))
    states = torch.randn((*batch.ids.shape, SPEC.hidden_size), generator=torch.Generator().manual_seed(0))
    assert not Leaving(trainer._heads, batch, 0.0, [0])(LAYERS[0], 40 * states).any()
    assert not Leaving(trainer._heads, batch, 1.0, [0])(LAYERS[0], 0 * states).any()
