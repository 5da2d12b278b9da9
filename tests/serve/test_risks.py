"""What is made of shadow samples: an estimate that follows the traffic, and a warning."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from offramp import ExitParams
from offramp.serve.process import ProcessClient
from offramp.serve.protocol import Outcome, Rescored
from offramp.serve.risks import WINDOW, ShadowRisks
from tests.serve.engines import collect, job, toy_options

Told = list[tuple[str, dict[str, Any]]]


def measuring() -> tuple[ShadowRisks, Told]:
    told: Told = []
    return ShadowRisks(lambda event, **fields: told.append((event, fields))), told


def sample(differ: int, promised: float | None = 0.02, position: str = "0.02", greedy: bool = True) -> Rescored:
    return Rescored(position, "rescored", greedy, promised, 100, differ)


def test_each_output_counts_alike_however_long_it_is() -> None:
    risks, _ = measuring()
    for tokens, differ in ((1, 1), (99, 0)):
        risks.add(Rescored("0.02", "rescored", True, 0.02, tokens, differ))
    risk = risks.risks["0.02"]
    assert (risk.measured, risk.samples, risk.promised) == (0.5, 2, 0.02)
    assert 0 <= risk.low < 0.5 < risk.high <= 1


def test_it_warns_once_when_the_risk_is_too_large_for_certain_and_says_when_it_is_back() -> None:
    risks, told = measuring()
    for _ in range(WINDOW):
        risks.add(sample(1))
    assert told == []
    for _ in range(WINDOW):
        risks.add(sample(10))
    [(event, fields)] = told
    assert (event, fields["level"], fields["exit"], fields["promised"]) == ("risk_exceeded", "warning", "0.02", 0.02)
    assert fields["low"] > 0.02 and risks.risks["0.02"].exceeded
    assert risks.risks["0.02"].samples == WINDOW and risks.risks["0.02"].measured == pytest.approx(0.1)
    for _ in range(WINDOW):
        risks.add(sample(0))
    assert [event for event, _ in told] == ["risk_exceeded", "risk_kept"] and not risks.risks["0.02"].exceeded


def test_one_token_that_differs_where_none_may_is_enough() -> None:
    risks, told = measuring()
    risks.add(sample(0, 0.0, "lossless"))
    risks.add(sample(1, 0.0, "lossless"))
    assert [event for event, _ in told] == ["risk_exceeded"]


def test_nothing_is_exceeded_where_nothing_is_promised() -> None:
    risks, told = measuring()
    for _ in range(200):
        risks.add(sample(100, None, "0.02", greedy=False))
    assert told == [] and set(risks.risks) == {"0.02 sampled"}


def test_what_was_not_rescored_is_counted_and_measures_nothing() -> None:
    risks, _ = measuring()
    outcomes: tuple[Outcome, ...] = ("dropped", "unfinished", "unfinished", "failed")
    for outcome in outcomes:
        risks.add(Rescored("off", outcome))
    assert risks.risks == {} and dict(risks.outcomes) == {"dropped": 1, "unfinished": 2, "failed": 1}


def test_samples_come_through_the_pipe_once_the_engine_is_idle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OFFRAMP_CACHE", str(tmp_path / "cache"))
    risks, _ = measuring()

    async def story() -> None:
        client = ProcessClient(toy_options(tmp_path), 1.0, risks.add)
        await client.start()
        await client.wait_ready()
        for exit in ("lossless", ExitParams(threshold=0.2)):
            jobs = [job((65, 66, i), max_tokens=40, ignore_eos=True, exit=exit) for i in (67, 68)]
            await asyncio.gather(*(collect(client.generate(one)) for one in jobs))
        while risks.outcomes["rescored"] < 4:
            await asyncio.sleep(0.02)
        assert (await client.stats()).kv_used_blocks == 0
        await client.close()

    asyncio.run(asyncio.wait_for(story(), 60))
    assert {label: (risk.samples, risk.promised) for label, risk in risks.risks.items()} == {
        "lossless": (2, 0.0),
        "criterion": (2, None),
    }
    assert risks.risks["lossless"].measured == 0 < risks.risks["criterion"].measured
