"""Batching policies: what each of them picks, and that `depth` keeps its promise in modelled time."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from offramp.config import EngineConfig
from offramp.engine.costs import CostModel
from offramp.engine.engine import Engine
from offramp.engine.policies import Candidate, Compact, Depth, Lockstep
from offramp.engine.sequence import Sequence
from offramp.types.exits import ExitParams
from offramp.types.sampling import SamplingParams
from tests.engine import idle
from tests.engine.idle import Idle, IdleReader
from tests.engine.toy_engine import make_engine, request

SHAPE = make_engine().executor.shape


def waiting_at(segment: int, number: int = 0, *, prompt: bool = False, due: float = 1e9) -> Candidate:
    """A sequence whose live token, or prompt, needs `segment` next."""
    sequence = Sequence(number, [1, 2, 3], SamplingParams(), 0, SHAPE)
    sequence.due = due
    if not prompt:
        sequence.frontier = [3] * 4
        sequence.choose(4, 5, None)
        sequence.frontier = [4] * segment + [3] * (4 - segment)
    assert sequence.replaying is prompt
    return Candidate(sequence, segment, 3 if prompt else 1)


def picked(policy: Compact | Depth, *candidates: Candidate) -> tuple[int, list[int]]:
    segment, chosen = policy.select(candidates)
    return segment, [c.sequence.number for c in chosen]


def test_compact_finishes_an_iteration_lowest_segment_first() -> None:
    assert picked(Compact(), waiting_at(0, 0), waiting_at(2, 1), waiting_at(1, 2), waiting_at(1, 3)) == (1, [2, 3])
    assert picked(Compact(), waiting_at(0, 0), waiting_at(0, 1)) == (0, [0, 1])


def test_lockstep_runs_prompts_apart_and_between_iterations() -> None:
    assert picked(Lockstep(), waiting_at(0, 0), waiting_at(0, 1, prompt=True)) == (0, [1])
    assert picked(Lockstep(), waiting_at(2, 0), waiting_at(0, 1, prompt=True)) == (2, [0])


def depth() -> Depth:
    return Depth(CostModel.from_layers(SHAPE.layers_at))


def test_depth_lets_the_lower_group_join_the_upper_one_where_that_saves_more() -> None:
    assert picked(depth(), waiting_at(1, 0), waiting_at(2, 1), waiting_at(2, 2)) == (1, [0])
    assert picked(depth(), waiting_at(1, 0), waiting_at(3, 1)) == (3, [1])
    assert picked(depth(), waiting_at(1, 0), waiting_at(1, 1), waiting_at(3, 2)) == (1, [0, 1])


def test_depth_does_not_wait_for_sequences_that_will_leave_below() -> None:
    policy = depth()
    eight = [waiting_at(1, n).sequence for n in range(8)]
    for _ in range(100):
        policy.stepped(1, 8, eight, eight, 8)
    assert picked(policy, waiting_at(1, 0), waiting_at(2, 1), waiting_at(2, 2)) == (2, [1, 2])
    for _ in range(400):
        policy.stepped(1, 8, eight, [], 8)
    assert picked(policy, waiting_at(1, 0), waiting_at(2, 1), waiting_at(2, 2)) == (1, [0])


def test_depth_hurries_whoever_could_miss_its_deadline() -> None:
    crowd = [waiting_at(0, n) for n in range(1, 8)]
    assert picked(depth(), waiting_at(3, 0), *crowd)[0] == 0
    assert picked(depth(), waiting_at(3, 0, due=1.0), *crowd) == (3, [0])


def token_times(exit_layers: list[list[int]] | None, prompt_length: int, source_length: int) -> list[list[float]]:
    """Modelled time of every token of 8 requests under `depth`; exit layers as given, or full depth."""
    config = EngineConfig(batching="depth", max_num_batched_tokens=128, profitability=False, prefix_caching=False)
    engine = Engine(IdleReader() if source_length else Idle(), config, idle.prices())
    policy = engine.policy
    assert isinstance(policy, Depth)
    for i in range(8):
        exit = None
        if exit_layers is not None:
            exit = ExitParams(criterion="replay", threshold=1, options={"exit_layers": exit_layers[i]})
        engine.submit(replace(request((1,) * prompt_length, exit, max_tokens=40), source=(1,) * source_length))
    times: list[list[float]] = [[] for _ in range(8)]
    while engine.has_work:
        for event in engine.step().events:
            times[event.sequence].append(policy.clock)
    return times


@pytest.mark.parametrize(("prompt_length", "source_length"), [(2, 0), (40, 0), (1, 50)])
@pytest.mark.parametrize("layers", [(10,), (20,), (10, 20)])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_no_token_comes_more_than_a_twentieth_later_than_at_full_depth(
    share: float, layers: tuple[int, ...], prompt_length: int, source_length: int
) -> None:
    """Tests are paid for, also by the one request that never leaves. With a tenth leaving exits do not pay for that,
    and it takes the profitability switch."""
    full = token_times(None, prompt_length, source_length)
    for seed in range(3):
        rng = random.Random(seed)
        traces = [[rng.choice(layers) if rng.random() < share else 30 for _ in range(40)] for _ in range(7)]
        early = token_times([*traces, [30] * 40], prompt_length, source_length)
        pairs = [pair for e, f in zip(early, full, strict=True) for pair in zip(e, f, strict=True)]
        assert max(e / f for e, f in pairs) <= 1.05
        assert sum(e[-1] for e in early) <= 1.05 * sum(f[-1] for f in full)
