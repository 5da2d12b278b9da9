"""Statistics, ratios, and reports that become JSON and come back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from offramp.bench.results import EngineReport, read_report, spread, write_json
from offramp.bench.results import ratio as ratio_of
from offramp.errors import InvalidParameter
from tests.bench.toys import cell, record, report


def test_a_spread_is_median_smallest_largest() -> None:
    assert spread([3.0, 1.0, 2.0]) == (2.0, 1.0, 3.0)
    assert spread([]) is None


def test_rejected_repeats_do_not_count() -> None:
    seen = cell("a", "decode/1", 10.0, None, 30.0)
    assert seen.spread == (20.0, 10.0, 30.0)
    assert seen.rejected == 1
    assert cell("a", "decode/1", None).spread is None


def test_a_ratio_compares_round_with_round() -> None:
    # The machine slows down fourfold between the rounds; the ratio does not see it.
    assert ratio_of(cell("a", "decode/1", 40.0, 10.0), cell("b", "decode/1", 20.0, 5.0)) == (2.0, 2.0, 2.0)


def test_a_ratio_takes_rounds_that_both_have() -> None:
    assert ratio_of(cell("a", "decode/1", 40.0, None, 9.0), cell("b", "decode/1", 20.0, 5.0, 3.0)) == (2.5, 2.0, 3.0)
    assert ratio_of(cell("a", "decode/1", 40.0, None), cell("b", "decode/1", None, 5.0)) is None


def test_a_report_comes_back_from_json(tmp_path: Path) -> None:
    engines = [record("offramp int8"), record("vllm float32", absent="not installed")]
    made = report(engines, [cell("offramp int8", "decode/1", 10.0, None, 30.0)])
    write_json(tmp_path / "engine.json", made.to_dict())
    assert read_report(tmp_path / "engine.json", EngineReport) == made


def test_json_spells_the_statistics_out() -> None:
    made = report([record("offramp int8")], [cell("offramp int8", "decode/8", 10.0, None, 30.0)])
    values = json.loads(json.dumps(made.to_dict()))
    assert values["format"] == 1 and values["kind"] == "engine"
    assert {"date", "machine", "code", "settings", "ceilings", "engines", "cells"} <= values.keys()
    seen = values["cells"][0]
    assert (seen["median"], seen["low"], seen["high"], seen["rejected"]) == (20.0, 10.0, 30.0, 1)
    assert seen["repeats"][1] == {
        "round": 1,
        "value": 1.0,
        "seconds": 1.0,
        "others": 0.0,
        "steal": 0.0,
        "clean": False,
    }


@pytest.mark.parametrize("text", ["", "[]", '{"format": 1, "kind": "exits"}', '{"format": 1, "kind": "engine"}'])
def test_another_file_is_no_report(tmp_path: Path, text: str) -> None:
    (tmp_path / "engine.json").write_text(text, encoding="utf-8")
    with pytest.raises(InvalidParameter, match="is not a report of `offramp bench engine`"):
        read_report(tmp_path / "engine.json", EngineReport)


def test_from_dict_is_the_inverse_of_to_dict() -> None:
    made = report([record("offramp int8")], [cell("offramp int8", "step/2", 3.0)])
    assert EngineReport.from_dict(made.to_dict()) == made
