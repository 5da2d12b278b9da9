"""What `bench paper` compares for a pack, and what it makes of packs that lack something."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from offramp.bench.paper_settings import PaperSettings, Setting, Traffic, arrival_settings, settings_for
from offramp.bench.whole_heads import write_whole_heads
from offramp.bench.workloads import SHIPPED, choose_exits
from offramp.errors import InvalidParameter
from offramp.exits.calibration import Calibration, CalibrationKey
from offramp.exits.pack import ExitPack, ExitSpec, static_exits
from offramp.exits.read import read_pack
from offramp.types.exits import ExitParams
from tests.bench.paper_toys import GRID, WORDS, toy_pack

KEY = CalibrationKey("model", "pack", None, "native", "int8", "float16")


def named(pack: ExitPack, grid: PaperSettings = GRID) -> tuple[dict[str, Setting], list[str]]:
    ways, left_out = settings_for(pack, KEY, grid)
    found = {way.name: way for way in ways}
    assert len(found) == len(ways)
    return found, left_out


def test_each_step_changes_one_thing(tmp_path: Path) -> None:
    ways, _ = named(read_pack(toy_pack(tmp_path)))
    steps = ["paper max_prob 0.4", "+ compact", "+ depth", "+ lazy fill", "+ reduced heads"]
    changes = []
    for before, after in pairwise(steps):
        a, b = ways[before], ways[after]
        changes.append([n for n in ("batching", "exit", "heads") if getattr(a, n) != getattr(b, n)])
    assert changes == [["batching"], ["batching"], ["exit"], ["heads"]]
    assert ways["+ lazy fill"].exit == replace(ways["+ depth"].exit or ExitParams(), fill_when="lazy")


def test_the_papers_configuration() -> None:
    ways, left_out = named(static_exits([2, 4], 6))
    assert any(text.startswith("reduced heads") for text in left_out)
    papers = [way for way in ways.values() if way.family == "paper"]
    assert [way.exit.criterion for way in papers if way.exit] == ["max_prob", "max_prob", "saturation"]
    for way in papers:
        assert way.exit is not None and (way.batching, way.exit.kv, way.exit.fill_when) == (
            "lockstep",
            "fill",
            "iteration",
        )


def test_what_a_pack_lacks_is_left_out_with_the_reason() -> None:
    ways, left_out = named(static_exits([2], 6))
    assert not [name for name in ways if "saturation" in name or "classifier" in name or name == "+ reduced heads"]
    reasons = ["saturation", "classifier, router", "reduced heads", "calibrated thresholds"]
    assert [text.partition(":")[0] for text in left_out] == reasons


def test_heads_that_read_the_past_keep_their_vocabulary() -> None:
    pack = ExitPack("x", None, (ExitSpec(0, past="deep", vocabulary="few"),), {"few": (1, 2)})
    ways, left_out = named(pack)
    assert {way.heads for way in ways.values()} == {"own"}
    assert any("read the past" in text for text in left_out)


def test_calibrated_thresholds_come_before_the_packs_own(tmp_path: Path) -> None:
    exit = ExitParams(threshold=0.7)
    pack = read_pack(toy_pack(tmp_path))
    calibrated = replace(
        pack, calibrations=(Calibration(replace(KEY, kv="fill"), 0.02, 0.05, "disagreement", 9, exit),)
    )
    assert named(calibrated)[0]["+ calibrated 0.02"].exit == exit
    assert "+ pack's thresholds" in named(pack)[0] and "+ pack's thresholds" not in named(calibrated)[0]


def test_arrivals_compare_the_paper_with_all_that_improves_it_at_the_same_threshold(tmp_path: Path) -> None:
    ways = settings_for(read_pack(toy_pack(tmp_path)), KEY, GRID)[0]
    assert [way.name for way in arrival_settings(ways)] == ["paper max_prob 0.4", "+ reduced heads", "lossless"]


def test_whole_heads_keep_everything_but_the_vocabulary(tmp_path: Path) -> None:
    own = read_pack(toy_pack(tmp_path / "own"))
    whole = read_pack(write_whole_heads(tmp_path / "whole", own))
    assert own.exits[0].vocabulary == "some" and own.vocabularies["some"] == WORDS
    assert [(e.layer, e.vocabulary, e.other, e.classifier) for e in whole.exits] == [
        (1, None, False, "linear"),
        (3, None, False, "linear"),
    ]
    assert own.trunk is not None and whole.trunk is not None
    before, after = own.trunk.tensors(), whole.trunk.tensors()
    assert before.keys() == after.keys() and all((before[name] == after[name]).all() for name in before)
    name = "classifier.weight"
    assert (own.tensor(3, name) == whole.tensor(3, name)).all()


def test_the_papers_policy_also_gets_the_heads_that_were_trained(tmp_path: Path) -> None:
    ways, _ = named(read_pack(toy_pack(tmp_path)))
    whole, own = ways["paper max_prob 0.4"], ways["paper max_prob 0.4, own heads"]
    assert (whole.heads, own.heads) == ("whole", "own") and replace(own, name=whole.name, heads="whole") == whole


@pytest.mark.parametrize(
    ("traffic", "label", "prompts"),
    [(Traffic(1), "B=1", 4), (Traffic(32), "B=32", 48), (Traffic(load=0.5), "load 0.5", 4)],
)
def test_traffic(traffic: Traffic, label: str, prompts: int) -> None:
    assert (traffic.label, GRID.prompts_under(traffic)) == (label, prompts)


def test_a_models_own_task_comes_with_its_exits() -> None:
    assert choose_exits("smollm2-135m", None, None) == "log-triage"
    assert choose_exits("smollm2-135m", [3], Path("x")) == [3]
    assert choose_exits("my-model", None, Path("x")) is None
    with pytest.raises(InvalidParameter, match="`--data` needs `--exits`"):
        choose_exits("smollm2-135m", None, Path("x"))


def test_every_shipped_task_is_there() -> None:
    for task in SHIPPED.values():
        assert task.prompts.is_file() and read_pack(task.pack).exits


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batches": ()}, "`--batch` holds nothing"),
        ({"batches": (1, 1)}, "`--batch` names a value twice"),
        ({"batches": (0,)}, "`batch` must be"),
        ({"loads": (0.0,)}, "`loads` must be"),
        ({"loads": (0.5, 0.5)}, "`--loads` names a value twice"),
        ({"thresholds": ()}, "`--thresholds` holds nothing"),
        ({"thresholds": (1.5,)}, "`thresholds` must be"),
        ({"saturations": (-0.1,)}, "`saturations` must be"),
        ({"repeats": 0}, "`repeats` must be"),
    ],
)
def test_settings_that_make_no_sense(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidParameter, match=message):
        PaperSettings(**change)
