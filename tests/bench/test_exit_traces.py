"""Traces to replay, made up and recorded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from offramp.bench.exit_traces import RECORDED, default_exits, made_up_traces, recorded_trace, shipped_trace
from offramp.engine.trace import read_trace
from offramp.errors import TraceError

LINE = {"format": 1, "depth": 6, "exits": [2, 4], "prompt_tokens": 3, "token_ids": [1], "tests": [[]]}


def write(path: Path, *lines: dict[str, Any]) -> Path:
    path.write_text("\n".join(json.dumps({**LINE, **line}) for line in lines), encoding="utf-8")
    return path


@pytest.mark.parametrize(("depth", "exits"), [(30, (10, 20)), (6, (2, 4)), (2, (1,)), (1, ())])
def test_exits_are_at_thirds_of_the_depth(depth: int, exits: tuple[int, ...]) -> None:
    assert default_exits(depth) == exits


def test_each_share_leaves_at_each_exit() -> None:
    traces = made_up_traces(30, (10, 20))
    assert [t.name for t in traces] == [f"{share}% at {layer}" for layer in (10, 20) for share in (30, 60, 90)]
    for trace in traces:
        layers = [layer for row in range(40) for layer in trace.rows(row, 100)]
        assert set(layers) == {trace.layer, 30}
        assert abs(layers.count(trace.layer) / len(layers) - trace.share) < 0.03


def test_rows_differ_and_come_back() -> None:
    trace = made_up_traces(30, (10,), (0.6,))[0]
    assert trace.rows(0, 50) == trace.rows(0, 50)
    assert trace.rows(0, 50)[:20] == trace.rows(0, 20)
    assert trace.rows(0, 50) != trace.rows(1, 50)
    both = sum(a == b == 10 for a, b in zip(trace.rows(0, 4000), trace.rows(1, 4000), strict=True))
    assert abs(both / 4000 - 0.36) < 0.04


def test_a_recorded_trace_goes_round(tmp_path: Path) -> None:
    path = write(tmp_path / "t.jsonl", {"exit_layers": [6, 2, 4]}, {"exit_layers": []}, {"exit_layers": [2, 2]})
    trace = recorded_trace(path, 6)
    assert (trace.name, trace.exits) == ("t.jsonl", (2, 4))
    assert trace.rows(0, 5) == (6, 2, 4, 6, 2)
    assert trace.rows(1, 3) == (2, 2, 2)
    assert trace.rows(2, 3) == (2, 4, 6), "the third sequence repeats the first output, from another place"


def test_the_shipped_trace_is_a_recorded_run_of_the_default_model() -> None:
    outputs = read_trace(RECORDED)
    assert len(outputs) >= 16 and RECORDED.stat().st_size <= 60_000
    layers = [layer for output in outputs for layer in output["exit_layers"]]
    left = sum(layer < 30 for layer in layers) / len(layers)
    assert 0.3 <= left <= 0.6 and set(layers) == {10, 20, 30}
    for output in outputs:
        assert (output["depth"], output["exits"]) == (30, [10, 20])
        assert len(output["token_ids"]) == len(output["exit_layers"]) == len(output["tests"]) > 0
        for layer, tests in zip(output["exit_layers"], output["tests"], strict=True):
            # The first token is chosen at the top, untested; any other was tested at every exit up to where it left.
            assert [at for at, _ in tests] in ([], [exit for exit in (10, 20) if exit <= layer])


def test_the_shipped_trace_leaves_at_the_exits_of_any_model() -> None:
    own, other = shipped_trace(30), shipped_trace(12)
    assert own is not None and other is not None and (own.exits, other.exits) == ((10, 20), (4, 8))
    here = {10: 4, 20: 8, 30: 12}
    assert [here[layer] for layer in own.rows(3, 40)] == list(other.rows(3, 40))
    assert shipped_trace(2) is None


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([{"exit_layers": []}], "holds no tokens"),
        ([{"exit_layers": [2], "depth": 30}], "30 layers and exits"),
        ([{"exit_layers": [2]}, {"exit_layers": [3], "exits": [3]}], r"exits \[3\], this one has 6 layers"),
        ([{"exit_layers": [3]}], "leaves at layer 3, which is none of its exits"),
    ],
)
def test_traces_that_do_not_fit(tmp_path: Path, lines: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(TraceError, match=message):
        recorded_trace(write(tmp_path / "t.jsonl", *lines), 6)
