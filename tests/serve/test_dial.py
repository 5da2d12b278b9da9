"""`exit` in requests and in answers, on every generating route."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest

from offramp.serve.http.dial import ByCriterion
from offramp.types.exits import LOSSLESS, ExitParams
from tests.serve.site import Site, ask, chat, error_of, events, visit

PATH = "/v1/chat/completions"


def test_the_criterion_form_has_the_fields_and_defaults_of_exit_params() -> None:
    assert set(ByCriterion.model_fields) == {f.name for f in fields(ExitParams)} | {"trace"}
    assert ByCriterion().params() == ExitParams()
    for f in fields(ExitParams):
        if f.name != "options":
            assert ByCriterion.model_fields[f.name].default == f.default


@pytest.mark.parametrize(
    ("exit", "dial"),
    [
        ("off", "off"),
        ("lossless", "lossless"),
        ({"mode": "lossless", "trace": True}, "lossless"),
        ({"risk": 0.02}, 0.02),
        ({"risk": "task:0.05"}, "task:0.05"),
        ({"criterion": "margin", "threshold": 0.5, "min_layer": 2}, ExitParams("margin", 0.5, 2)),
        ({"threshold": {"4": 0.5, "8": 1}, "kv": "verify"}, ExitParams(threshold={4: 0.5, 8: 1.0}, kv="verify")),
        (None, 0.02),
        ({"trace": True}, 0.02),
    ],
)
def test_the_forms_of_the_dial(exit: Any, dial: Any) -> None:
    async def scene(here: Site) -> Any:
        answer = await here.post(PATH, chat(exit=exit))
        assert answer.status_code == 200, answer.text
        return here.client.jobs[0].exit, answer.json()["exit"]["asked"]

    told, asked = visit(scene, exit=0.02)
    assert told == dial
    if isinstance(exit, dict) and set(exit) - {"trace", "mode"}:
        assert asked == exit
    else:
        assert asked == (dial if isinstance(dial, str) else {"risk": dial})


@pytest.mark.parametrize(
    ("exit", "param", "says"),
    [
        ("fast", "exit", "'off' or 'lossless'"),
        (0.02, "exit", "'off' or 'lossless'"),
        ({"mode": "fast"}, "exit.mode", "'off' or 'lossless'"),
        ({"mode": "off", "kv": "fill"}, "exit.kv", "unknown field `kv`"),
        ({"risk": 0.02, "threshold": 0.5}, "exit.threshold", "unknown field"),
        ({"criterio": "margin"}, "exit.criterio", "did you mean `criterion`?"),
        ({"risk": "often"}, "exit.risk", "cannot be 'often'"),
        ({"risk": 2}, "exit.risk", "not 2"),
        ({"risk": 0.3}, "exit", "no calibration"),
        ({"kv": "keep"}, "exit.kv", "'fill', 'recompute' or 'verify'"),
        ({"threshold": {"x": 0.5}}, "exit.threshold", "no layer"),
        ({"threshold": 1.5}, "threshold", "at most 1"),
        ({"max_draft": 65}, "exit.max_draft", "64"),
    ],
)
def test_what_is_no_position_of_the_dial_is_refused(exit: Any, param: str, says: str) -> None:
    error = error_of(ask(PATH, chat(exit=exit)), 400)
    assert error["param"] == param
    assert says in error["message"]


def test_the_policy_limits_risks_and_keeps_criteria_out() -> None:
    policy: dict[str, Any] = {"max_risk": 0.02, "allow_criteria": False}
    for exit in ("off", "lossless", {"risk": 0.02}):
        assert ask(PATH, chat(exit=exit), **policy).status_code == 200
    assert "at most 0.02" in error_of(ask(PATH, chat(exit={"risk": "task:0.05"}), **policy), 400)["message"]
    assert "no criterion" in error_of(ask(PATH, chat(exit={"kv": "fill"}), **policy), 400)["message"]


def test_the_answer_says_where_the_work_went() -> None:
    said = ask(PATH, chat(exit={"kv": "fill"}, n=2)).json()
    exit, tokens = said["exit"], said["usage"]["completion_tokens"]
    assert exit["num_layers"] == 12
    assert sum(exit["histogram"].values()) == tokens
    assert exit["layers_run"] + exit["layers_filled"] + exit["layers_skipped"] == 12 * tokens
    depth = sum(int(layer) * count for layer, count in exit["histogram"].items()) / tokens
    assert exit["mean_depth"] == pytest.approx(depth, abs=1e-4)
    assert exit["resolved"]["kv"] == "fill"
    assert (exit["drafts_proposed"], exit["acceptance"], exit["switched_off"]) == (0, None, False)


def test_drafts_are_counted_and_their_acceptance() -> None:
    exit = ask(PATH, chat(exit="lossless")).json()["exit"]
    assert exit["resolved"]["kv"] == LOSSLESS.kv
    assert 0 < exit["drafts_accepted"] < exit["drafts_proposed"]
    assert exit["acceptance"] == pytest.approx(exit["drafts_accepted"] / exit["drafts_proposed"], abs=1e-4)


def test_off_resolves_to_nothing() -> None:
    exit = ask(PATH, chat(exit="off")).json()["exit"]
    assert (exit["asked"], exit["resolved"], exit["histogram"]) == ("off", None, {"12": 19})


@pytest.mark.parametrize(
    ("path", "body"), [(PATH, chat("Hé")), ("/v1/completions", {"prompt": "Hé"}), ("/generate", {"prompt": "Hé"})]
)
def test_a_trace_names_every_new_token(path: str, body: dict[str, Any]) -> None:
    asked = {**body, "exit": {"mode": "lossless", "trace": True}}
    answer = ask(path, asked).json()
    [choice] = answer.get("choices", answer.get("outputs"))
    trace = choice["exit_trace"]
    assert len(trace) == answer["usage"]["completion_tokens"]
    assert all(set(entry) == {"id", "token", "layer", "confidence"} for entry in trace)
    histogram: dict[str, int] = {}
    for entry in trace:
        histogram[str(entry["layer"])] = histogram.get(str(entry["layer"]), 0) + 1
        assert (entry["confidence"] is None) == (entry["layer"] == 12)
    assert histogram == answer["exit"]["histogram"]
    chunks = events(ask(path, {**asked, "stream": True}))[:-1]
    parts = [part for chunk in chunks for part in chunk.get("choices", chunk.get("outputs"))]
    assert [entry for part in parts for entry in part.get("exit_trace", ())] == trace


def test_without_trace_there_is_none() -> None:
    assert "exit_trace" not in ask(PATH, chat(exit="lossless")).json()["choices"][0]
