"""A short soak: the one of ten thousand requests, scripts/soak, with a few hundred and a toy model."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from offramp.serve.fake_output import CHATML
from scripts.soak.judge import Judge
from scripts.soak.memory import Life
from scripts.soak.run import Plan, soak
from scripts.soak.traffic import KEY, Case
from scripts.soak.wire import Answer
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


LAYERS = {"num_layers": 4, "layers_run": 4, "layers_filled": 0, "layers_skipped": 0}
EXIT = {"asked": "off", **LAYERS, "histogram": {"4": 1}}
CHOICE = {"index": 0, "text": "a", "finish_reason": "stop"}
GOOD = {"choices": [CHOICE], "usage": {"completion_tokens": 1}, "exit": EXIT}
CASE = Case("completion", b"", path="/v1/completions", body={"prompt": "p", "stop": "x", "exit": "off"}, same="one")
ERROR = {"message": "m", "type": "invalid_request_error", "param": None, "code": None}


def answer(body: Any, status: int = 200, whole: bool = True) -> Answer:
    return Answer(status, {"content-type": "application/json"}, json.dumps(body).encode(), whole)


def test_a_good_answer_is_one() -> None:
    judge = Judge()
    assert [judge.judge(CASE, answer(GOOD), out=False) for _ in range(2)] == ["200", "200"]
    assert (judge.violations, judge.compared) == ([], 2)


@pytest.mark.parametrize(
    "wrong",
    [
        answer(GOOD, whole=False),
        answer({"detail": "not found"}, 404),
        answer({"error": ERROR}, 400),
        answer({"error": {**ERROR, "code": "engine_down"}}, 503),
        answer({"error": {**ERROR, "code": "queue_full"}}, 429),
        answer({**GOOD, "choices": []}),
        answer({**GOOD, "choices": [{**CHOICE, "text": "b"}]}),
        answer({**GOOD, "choices": [{**CHOICE, "text": "axe"}]}),
        answer({**GOOD, "choices": [{**CHOICE, "finish_reason": "error"}]}),
        answer({**GOOD, "exit": {**EXIT, "layers_run": 3}}),
        answer({**GOOD, "exit": {**EXIT, "asked": "lossless"}}),
        answer({**GOOD, "model": KEY}),
    ],
)
def test_anything_else_is_wrong(wrong: Answer) -> None:
    judge = Judge()
    judge.judge(CASE, answer(GOOD), out=False)
    assert judge.judge(CASE, wrong, out=False) == "WRONG" and len(judge.violations) == 1


def test_an_engine_that_is_gone_excuses_only_its_own_error() -> None:
    judge = Judge()
    gone = answer({"error": {**ERROR, "type": "service_unavailable_error", "code": "engine_down"}}, 503)
    assert judge.judge(CASE, gone, out=True) == "503 engine_down"
    assert judge.judge(CASE, answer({"error": ERROR}, 400), out=True) == "WRONG"


@pytest.mark.parametrize(("leak", "grows"), [(0.0, False), (0.001, False), (0.02, True)])
def test_memory_that_grows_after_the_warm_up_is_found(leak: float, grows: bool) -> None:
    samples = [(ended, 300 + min(ended, 1000) * 0.1 + ended * leak) for ended in range(0, 6000, 10)]
    assert (Life("engine", samples).fault() is not None) == grows
    assert Life("engine", samples[:100]).fault() is None
