"""A short soak: the one of ten thousand requests, scripts/soak, with a few hundred and a toy model."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import pytest

from offramp.serve.fake_output import CHATML
from scripts.soak.run import Plan, soak
from tests.serve.engines import toy_options

WORDS = "--exits 2,4 --exit lossless --dtype float32 --max-model-len 1024 --kv-tokens 4096 --threads 1"


def test_hundreds_of_mixed_requests_and_a_killed_engine_leave_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OFFRAMP_CACHE", str(tmp_path / "cache"))
    model = tmp_path / "model"
    model.mkdir()
    toy_options(model, poisoned=False)
    (model / "chat_template.jinja").write_text(CHATML, encoding="utf-8")
    words, limits = [str(model), *WORDS.split()], {"max_num_seqs": 4, "max_queue": 20}
    plan = Plan(words, requests=600, concurrency=32, words_in_prompt=40, kills=(0.4,), **limits)
    result = asyncio.run(soak(plan, tmp_path, lambda line: None))
    assert result.violations == []
    outcomes: Counter[str] = Counter()
    for (_, outcome), count in result.judge.outcomes.items():
        outcomes[outcome] += count
    assert outcomes.total() == 600 and len(result.restarts) == 1
    assert outcomes["200"] > 150 and result.judge.compared > len(result.judge.said)
    assert all(outcomes[met] for met in ("left", "400", "413 body_too_large", "429 queue_full", "503 engine_down"))
