"""Drafts: who wins the race, and that the winner serves `lossless`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from offramp import ExitParams, SamplingParams
from offramp.calibrate.drafts import DraftOptions, choose_drafts, run_race
from offramp.calibrate.prompts import Tokens, choose_prompts, read_prompts
from offramp.errors import InvalidParameter
from offramp.exits.write_calibration import write_calibrations
from offramp.llm import LLM
from tests.calibrate.conftest import open_llm

CANDIDATES = [ExitParams(threshold=t / 10, kv="verify", max_draft=n) for t in range(1, 10) for n in (2, 4)]
PROMPTS: list[Tokens] = [(i,) for i in range(40)]


@pytest.mark.parametrize("fastest", [0, 7, 17])
def test_the_fastest_candidate_wins_on_ever_more_prompts(fastest: int) -> None:
    calls: list[tuple[ExitParams | None, int]] = []

    def time(exit: ExitParams | None, prompts: Sequence[Tokens]) -> float:
        calls.append((exit, len(prompts)))
        return 2.5 if exit is None else 1.0 + abs(CANDIDATES.index(exit) - fastest)

    race = run_race(CANDIDATES, PROMPTS, 3, time)
    assert (race.winner, race.seconds, race.full_depth) == (CANDIDATES[fastest], 1.0, 2.5)
    rounds = [(sum(e is not None and n == count for e, n in calls), count) for count in (3, 6, 12, 24)]
    assert rounds == [(18, 3), (9, 6), (5, 12), (3, 24)] and calls[-2][1] == race.prompts == 40


def test_lossless_serves_the_winner(llm: LLM, model: Path, pack: Path, data: Path) -> None:
    prompts = [prompt.tokens for prompt in choose_prompts(read_prompts([data], llm.tokenizer), 12, 100)]
    race, calibration = choose_drafts(llm, prompts, DraftOptions(lengths=(1, 3), max_tokens=6, batch=2))
    assert race.winner.kv == "verify" and race.winner.max_draft in (1, 3) and race.seconds > 0
    write_calibrations(pack, [], calibration.key, [calibration], [0.0])
    with open_llm(model, pack, executor=llm.calibration_key.executor) as served:
        output = served.generate("abc", SamplingParams(max_tokens=8), "lossless")
        assert output.report.exits is not None
        thresholds = race.winner.threshold
        assert isinstance(thresholds, dict)
        assert output.report.exits["threshold"] == {str(layer): t for layer, t in thresholds.items()}
        assert output.token_ids == served.generate("abc", SamplingParams(max_tokens=8)).token_ids


@pytest.mark.parametrize("options", [{"lengths": (0,)}, {"lengths": (65,)}, {"batch": 0}, {"max_tokens": 0}])
def test_options_that_cannot_be(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidParameter, match="must be a whole number of at least 1"):
        DraftOptions(**options)


def test_one_prompt_is_too_few(llm: LLM) -> None:
    with pytest.raises(InvalidParameter, match=r"^choosing drafts takes at least 2 prompts"):
        choose_drafts(llm, [(1,)], DraftOptions())
