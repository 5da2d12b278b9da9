"""Traffic on a toy engine: what is counted, against what the engine gives without it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from offramp.bench.paper_settings import OFF, Setting
from offramp.bench.traffic import Stretch, _Traffic, ask_by_the_clock, ask_in_turns, poisson_times
from offramp.config import EngineConfig
from offramp.llm.session import Session
from offramp.types.exits import ExitParams
from offramp.types.output import Output
from offramp.types.sampling import SamplingParams
from tests.bench.paper_toys import Toy
from tests.calibrate.conftest import save_spread_model

SAMPLING = SamplingParams(max_tokens=9, ignore_eos=True)


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Toy]:
    folder = tmp_path_factory.mktemp("traffic")
    yield Toy(save_spread_model(folder / "model"), folder)


def session(toy: Toy, way: Setting, most: int = 3) -> Session:
    llm = toy.llms[way.heads]
    config = EngineConfig(way.batching, most, prefix_caching=False, profitability=False)
    return Session(llm.engine.executor, config, llm.engine.costs, llm.tokenizer, llm.pack, llm.calibration_key)


def in_turns(toy: Toy, name: str, clients: int = 3) -> Stretch:
    way = OFF if name == OFF.name else toy.way(name)
    return ask_in_turns(session(toy, way, clients), toy.prompts, SAMPLING, way.exit, clients)


def tokens(outputs: list[Output]) -> list[tuple[int, ...]]:
    return [output.token_ids for output in outputs]


@pytest.mark.parametrize("name", ["full depth", "+ depth", "+ reduced heads", "recompute", "lossless"])
def test_outputs_are_those_of_the_model_in_the_order_of_prompts(toy: Toy, name: str) -> None:
    way = OFF if name == OFF.name else toy.way(name)
    wanted = toy.llms[way.heads].generate(toy.prompts, SAMPLING, way.exit or "off")
    found = in_turns(toy, name).outputs
    assert tokens(found) == tokens(wanted)
    assert [output.exit_layers for output in found] == [output.exit_layers for output in wanted]


def test_one_client_counts_everything(toy: Toy) -> None:
    seen = in_turns(toy, "full depth", 1)
    assert seen.tokens == 8 * 9 and len(seen.first) == 8 and len(seen.gaps) == 8 * 8
    assert sum(seen.gaps) + sum(seen.first) <= seen.seconds
    assert 0 < sum(seen.split.values()) < seen.seconds


def test_nothing_counts_once_a_client_finds_no_prompt(toy: Toy) -> None:
    seen = in_turns(toy, "full depth", 3)
    # Three clients and eight prompts: six are answered in two waves of three, then two clients are left.
    assert len(seen.outputs) == 8
    assert seen.tokens < 8 * 9 and seen.tokens == len(seen.first) + len(seen.gaps)


def test_requests_come_at_their_times(toy: Toy) -> None:
    times = [0.0, 0.0, 0.01, 0.02, 0.02, 0.3, 0.3, 0.31]
    seen = ask_by_the_clock(session(toy, OFF, 2), toy.prompts, SAMPLING, None, times)
    assert tokens(seen.outputs) == tokens(in_turns(toy, "full depth").outputs)
    assert seen.tokens == 8 * 9 and seen.seconds > 0.31
    assert len(seen.first) == 8 and min(seen.first) > 0
    assert 0 < seen.idle < seen.seconds and sum(seen.split.values()) < seen.seconds - seen.idle


def test_arrivals_are_poisson_and_the_same_for_a_seed() -> None:
    times = poisson_times(2000, 4.0, "a")
    assert times == poisson_times(2000, 4.0, "a") != poisson_times(2000, 4.0, "b")
    assert times[0] == 0.0 and times == sorted(times)
    assert 2000 / times[-1] == pytest.approx(4.0, rel=0.1)


def test_lockstep_holds_rows_that_could_leave_and_forces_none(toy: Toy) -> None:
    way = toy.ways[0]
    seen = in_turns(toy, way.name)
    alone = in_turns(toy, way.name, 1)
    assert way.batching == "lockstep" and seen.held > 0 == seen.forced == alone.forced
    assert sum(sum(o.exit_layers) for o in alone.outputs) < sum(sum(o.exit_layers) for o in seen.outputs)


@pytest.mark.parametrize("name", ["+ compact", "+ depth", "recompute", "lossless", "full depth"])
def test_other_policies_hold_nobody(toy: Toy, name: str) -> None:
    seen = in_turns(toy, name)
    assert (seen.held, seen.forced) == (0, 0)


def test_a_token_below_its_threshold_was_forced(toy: Toy) -> None:
    way = toy.way("+ depth")
    assert isinstance(way.exit, ExitParams)
    left = [c for o in in_turns(toy, way.name).outputs for c in o.confidences if c is not None]
    strict = replace(way.exit, threshold=0.9)
    traffic = _Traffic(session(toy, way), SAMPLING, strict)
    for output in in_turns(toy, way.name).outputs:
        traffic._judge_exits(0, output, strict)
    assert traffic.stretch().forced == sum(c < 0.9 for c in left) > 0


def test_times_are_finite_where_one_token_is_asked_for(toy: Toy) -> None:
    one = SamplingParams(max_tokens=1)
    seen = ask_in_turns(session(toy, OFF), toy.prompts, one, None, 2)
    assert seen.gaps == [] and seen.tokens == len(seen.first)


def test_the_toy_has_a_way_for_everything(toy: Toy, tmp_path: Path) -> None:
    assert toy.left_out == []
    assert [way.name for way in toy.ways] == [
        "paper max_prob 0.4",
        "paper max_prob 0.2",
        "paper saturation 0.1",
        "paper classifier 0.2",
        "paper classifier 0.4",
        "paper max_prob 0.4, own heads",
        "+ compact",
        "+ depth",
        "+ lazy fill",
        "+ reduced heads",
        "+ router",
        "+ pack's thresholds",
        "ours max_prob 0.2",
        "recompute",
        "lossless",
    ]
