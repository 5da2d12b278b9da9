"""Heads that read the deep state of the token before, against an obvious NumPy computation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from offramp.exits.pack import ExitPack, ExitSpec, static_exits
from offramp.types.executor import Executor, ScoreRow
from tests.executors.kinds import read_state, write_hidden
from tests.executors.test_heads import ALL_LOGPROBS, expected_logits, rms, states
from tests.executors.toys import VOCAB, AnyToy, make_pack, softmax

ROWS = 6
KINDS: list[dict[str, Any]] = [{}, {"adapter": "mlp", "norm": "own"}, {"adapter": "linear", "norm": "none"}]


def joined(pack: ExitPack, h: np.ndarray, p: np.ndarray) -> np.ndarray:
    norms = (pack.tensor(2, f"past.{name}_norm.weight") for name in ("hidden", "state"))
    pair = np.concatenate([rms(x, norm) for x, norm in zip((h, p), norms, strict=True)], -1)
    return np.asarray(p + pair @ pack.tensor(2, "past.weight").T)


def table(executor: Executor, rows: int = ROWS) -> range:
    return range(-(-rows // executor.shape.block_size))


def written_states(executor: Executor, rows: int = ROWS) -> np.ndarray:
    return np.stack([read_state(executor, p, table(executor)) for p in range(rows)])


def score(executor: Executor, boundary: int, hidden: np.ndarray, **options: Any) -> list[Any]:
    write_hidden(executor, boundary, range(len(hidden)), hidden)
    rows = [ScoreRow(p, table(executor, len(hidden)), ALL_LOGPROBS, seed=0) for p in range(len(hidden))]
    return executor.score(boundary, rows, frozenset(), **options)


@pytest.mark.parametrize("fields", KINDS)
def test_a_head_reads_what_the_token_before_left(toy: AnyToy, fields: dict[str, Any]) -> None:
    pack = make_pack(toy, ExitSpec(2, past="deep", **fields))
    executor, hidden, tops = toy.executor(pack), states(toy, ROWS).numpy(), states(toy, ROWS, seed=2).numpy()
    score(executor, 2, tops)
    np.testing.assert_allclose(written_states(executor), tops, rtol=1e-6)
    # From the last row on, so that each reads what the top left and not what an exit did.
    past = np.concatenate([np.zeros((1, toy.spec.hidden_size)), tops[:-1]])
    expected = softmax(expected_logits(toy, pack, pack.exits[0], joined(pack, hidden, past)))
    write_hidden(executor, 1, range(ROWS), hidden)
    for p in reversed(range(ROWS)):
        (scored,) = executor.score(1, [ScoreRow(p, table(executor), ALL_LOGPROBS, seed=0)], frozenset())
        assert scored.logprobs is not None
        found = np.exp([dict(scored.logprobs)[token] for token in range(VOCAB)])
        np.testing.assert_allclose(found, expected[p], atol=toy.tolerance(1e-9))


def test_an_exit_leaves_what_meets_its_norm_and_a_test_that_chooses_nothing_leaves_all_as_it_was(toy: AnyToy) -> None:
    pack = make_pack(toy, ExitSpec(2, past="deep", adapter="linear", classifier="linear"))
    executor, hidden, tops = toy.executor(pack), states(toy, 2).numpy(), states(toy, 2, seed=2).numpy()
    score(executor, 2, tops)
    write_hidden(executor, 1, range(2), hidden)
    row = ScoreRow(1, table(executor, 2), ALL_LOGPROBS, seed=0)
    executor.score(1, [row], frozenset({"classifier"}), choose=False)
    np.testing.assert_allclose(written_states(executor, 2), tops, rtol=1e-6)
    executor.score(1, [row], frozenset())
    x = joined(pack, hidden[1:], tops[:1])
    left = x + x @ pack.tensor(2, "adapter.weight").T + pack.tensor(2, "adapter.bias")
    np.testing.assert_allclose(written_states(executor, 2), [tops[0], left[0]], rtol=1e-4, atol=1e-4)


def test_states_are_copied_with_their_blocks_and_can_be_put_elsewhere(toy: AnyToy) -> None:
    executor, tops = toy.executor(make_pack(toy, ExitSpec(2, past="deep"))), states(toy, 4).numpy()
    score(executor, 2, tops)
    executor.copy_blocks([(0, 7)])
    np.testing.assert_array_equal(read_state(executor, 2, [7]), read_state(executor, 2, [0]))
    executor.write_state(6, [3, 5], executor.read_state(2, [0]))
    np.testing.assert_array_equal(read_state(executor, 6, [9, 5]), read_state(executor, 2, [0]))


def test_nothing_is_kept_where_no_exit_reads_it(toy: AnyToy) -> None:
    executor = toy.executor(static_exits([2], toy.spec.num_layers))
    score(executor, 2, states(toy, 2).numpy())
    assert executor.read_state(1, [0]) is None
