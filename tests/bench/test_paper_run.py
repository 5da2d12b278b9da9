"""Whole runs of `bench paper` on a toy model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import Any
from xml.etree import ElementTree

import pytest

from offramp.bench import paper_run
from offramp.bench.paper_plot import paper_plots
from offramp.bench.paper_results import PaperReport
from offramp.bench.paper_run import REPORT, PaperRun
from offramp.bench.paper_settings import FULL_DEPTH, PaperSettings
from offramp.bench.paper_tables import at_quality, paper_notes, paper_tables
from offramp.bench.results import read_report
from offramp.bench.rounds import TRIES
from offramp.bench.traffic import ask_in_turns
from offramp.errors import InvalidParameter
from offramp.evaluate.likelihood import likelihoods
from offramp.evaluate.similarity import rouge_l
from offramp.llm.forced import given
from offramp.types.sampling import SamplingParams
from tests.bench.paper_toys import GRID, Toy
from tests.bench.toys import LOUD, QUIET, FakeWatch
from tests.calibrate.conftest import save_spread_model

LOADS = len(GRID.loads)


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Toy]:
    folder = tmp_path_factory.mktemp("paper")
    yield Toy(save_spread_model(folder / "model"), folder)


def run(
    toy: Toy, folder: Path, grid: PaperSettings = GRID, watch: FakeWatch | None = None, resume: bool = False
) -> PaperReport:
    said: list[tuple[int, int]] = []
    made = PaperRun(
        grid,
        toy.workload,
        toy.llms,
        toy.ways,
        folder,
        {"name": "toy", "dtype": "native float32", "threads": 1},
        update=lambda done, total, text: said.append((done, total)),
        watch=watch or FakeWatch(),
        resume=resume,
    )
    made.measure()
    assert all(done <= total for done, total in said)
    return made.report


@pytest.fixture(scope="module")
def report(toy: Toy, tmp_path_factory: pytest.TempPathFactory) -> PaperReport:
    return run(toy, tmp_path_factory.mktemp("run"))


def test_there_is_a_cell_for_each_way_and_traffic_and_full_depth_beside_each_group(
    toy: Toy, report: PaperReport
) -> None:
    names = [way.name for way in toy.ways]
    for traffic in ("B=1", "B=3"):
        cells = [cell for cell in report.cells if cell.traffic == traffic]
        assert [cell.way for cell in cells if cell.way != "full depth"] == names
        assert [cell.group for cell in cells if cell.way == "full depth"] == [0, 1, 2, 3]
    ways = ["full depth", "paper max_prob 0.4", "+ reduced heads", "lossless"]
    assert [cell.way for cell in report.cells if cell.traffic == "load 0.8"] == ways
    assert all(len(cell.speedup) == 2 for cell in report.cells)
    assert report.capacity is not None and report.capacity > 0


def test_full_depth_is_the_measure_of_all(report: PaperReport) -> None:
    for cell in report.cells:
        assert sum(cell.split.values()) == pytest.approx(1.0)
        if cell.way == "full depth":
            assert cell.speedup == cell.latency_gain == [1.0, 1.0]
            assert (cell.depth, cell.quality["agreement"], cell.quality["rouge_l"]) == (4.0, 1.0, 1.0)
    merged = [cell for cell in report.merged() if cell.way == "full depth"]
    assert [len(cell.tokens_per_s) for cell in merged] == [8, 8, 2]


def test_nobody_is_forced_and_only_lockstep_holds_rows(report: PaperReport) -> None:
    assert all(cell.forced == 0 for cell in report.cells)
    held = {(cell.way, cell.traffic) for cell in report.cells if cell.held}
    assert ("paper max_prob 0.2", "B=3") in held
    assert all(way.startswith("paper") for way, _ in held)


def test_what_does_not_depend_on_the_batch_is_the_same_in_every_step(report: PaperReport) -> None:
    quality = {(cell.way, cell.traffic): cell.quality for cell in report.cells}
    steps = ["paper max_prob 0.4", "+ compact", "+ depth", "+ lazy fill"]
    for first, second in pairwise(steps):
        assert quality[first, "B=1"] == quality[second, "B=1"]
    assert quality["lossless", "B=3"] == quality["full depth", "B=3"]
    assert quality["+ lazy fill", "B=3"] != quality["full depth", "B=3"]


def test_quality_is_what_a_recount_gives(toy: Toy, report: PaperReport) -> None:
    cell = next(c for c in report.cells if (c.way, c.traffic) == ("+ reduced heads", "B=3"))
    # Three clients, six prompts a round, two rounds, seven prompts: all of them.
    prompts = toy.prompts[:7]
    sampling = SamplingParams(max_tokens=9)
    outputs = toy.own.generate(prompts, sampling, toy.way("+ reduced heads").exit or "off")
    full = toy.own.generate(prompts, sampling)
    seen = likelihoods(toy.own.engine, [given(output, toy.own.engine.executor.shape) for output in outputs])
    agree = [
        fmean(t == s.choice for t, s in zip(o.token_ids, told, strict=True))
        for o, told in zip(outputs, seen, strict=True)
    ]
    assert cell.quality["agreement"] == pytest.approx(fmean(agree)) and 0 < fmean(agree) < 1
    alike = [rouge_l(a.text, b.text) for a, b in zip(outputs, full, strict=True)]
    assert cell.quality["rouge_l"] == pytest.approx(fmean(alike))
    assert cell.quality["right"] == 0.0


def test_the_report_comes_back_from_its_file(toy: Toy, tmp_path: Path) -> None:
    made = run(toy, tmp_path, replace(GRID, batches=(2,), loads=()))
    read = read_report(tmp_path / REPORT, PaperReport)
    assert read.to_dict() == made.to_dict()
    values = json.loads((tmp_path / REPORT).read_text(encoding="utf-8"))
    assert (values["format"], values["kind"]) == (1, "paper")
    assert values["ways"][1]["exit"]["fill_when"] == "iteration"
    assert {"tokens_per_s", "speedup", "split", "depths", "held", "forced", "quality"} <= values["cells"][0].keys()


def count_stretches(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The clients of every stretch that is measured from now on."""
    seen: list[int] = []

    def counted(*arguments: Any) -> Any:
        seen.append(arguments[-1])
        return ask_in_turns(*arguments)

    monkeypatch.setattr(paper_run, "ask_in_turns", counted)
    return seen


def test_a_run_goes_on_where_it_stopped(toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    grid = replace(GRID, loads=())
    first = run(toy, tmp_path, replace(grid, batches=(1,)))
    stretches = count_stretches(monkeypatch)
    second = run(toy, tmp_path, grid, resume=True)
    assert stretches == [3] * 2 * (len(toy.ways) + 4)
    assert [c.to_dict() for c in second.cells[: len(first.cells)]] == [c.to_dict() for c in first.cells]
    assert second.capacity is None  # nobody asked for arrivals
    stretches.clear()
    assert run(toy, tmp_path, grid, resume=True).to_dict()["cells"] == second.to_dict()["cells"] and not stretches
    with pytest.raises(InvalidParameter, match=r"has batches 3, which this run would leave out of it"):
        run(toy, tmp_path, replace(grid, batches=(1,)), resume=True)


def test_arrivals_are_measured_again_where_the_largest_batch_is_another(toy: Toy, tmp_path: Path) -> None:
    grid = replace(GRID, batches=(1,), loads=(0.5,), repeats=1)

    def cells(report: PaperReport, traffic: str) -> list[Any]:
        return [cell.to_dict() for cell in report.cells if cell.traffic == traffic]

    first = run(toy, tmp_path, grid)
    again = run(toy, tmp_path, grid, resume=True)
    assert again.capacity == first.capacity and again.to_dict()["cells"] == first.to_dict()["cells"]
    larger = run(toy, tmp_path, replace(grid, batches=(1, 3)), resume=True)
    assert larger.capacity != first.capacity
    labels = [cell.traffic for cell in first.cells]
    assert cells(larger, labels[0]) == cells(first, labels[0])
    assert cells(larger, labels[-1]) != cells(first, labels[-1]) and len(cells(larger, labels[-1])) > 1


def test_a_report_of_peers_is_kept(toy: Toy, tmp_path: Path) -> None:
    grid = replace(GRID, batches=(1,), loads=(), repeats=1)
    run(toy, tmp_path, grid)
    path = tmp_path / "paper.json"
    path.write_text(json.dumps({**json.loads(path.read_bytes()), "peers": {"kind": "engine"}}))
    assert run(toy, tmp_path, grid, resume=True).peers == {"kind": "engine"}


def test_a_run_that_was_measured_otherwise_is_not_resumed(toy: Toy, tmp_path: Path) -> None:
    grid = replace(GRID, batches=(1,), loads=(), repeats=1)
    run(toy, tmp_path, grid)
    with pytest.raises(InvalidParameter, match="was measured otherwise: thresholds, prompts differ"):
        run(toy, tmp_path, replace(grid, thresholds=(0.5,), prompts=3), resume=True)


def test_disturbed_stretches_are_done_again_or_left_out(toy: Toy, tmp_path: Path) -> None:
    grid = replace(GRID, batches=(1,), loads=(), repeats=1)
    # Full depth at the second try, and the paper's first way not at all; then it is quiet.
    report = run(toy, tmp_path, grid, FakeWatch(LOUD, QUIET, *[LOUD] * TRIES))
    assert [len(cell.speedup) for cell in report.cells[:3]] == [1, 0, 1]
    assert report.cells[1].quality and report.cells[1].tokens
    assert report.rejected == 1 + TRIES
    main = paper_tables(report)[0]
    assert "disturbed" in main.rows[1] and "disturbed" not in main.rows[2]
    assert paper_notes(report)[-1].startswith(f"{1 + TRIES} stretches were rejected")


def test_tables_have_a_row_for_each_way(report: PaperReport) -> None:
    main, best, splits = paper_tables(report)
    assert [row[:2] for row in main.rows] == [(c.traffic, c.way) for c in report.merged()]
    assert [row[0] for row in best.rows] == ["B=1", "B=3", "load 0.8"]
    for table in (main, best, splits):
        assert all(len(row) == len(table.columns) for row in table.rows)


def test_the_best_is_the_fastest_that_keeps_the_quality(report: PaperReport) -> None:
    chosen = {"paper max_prob 0.2": 1.5, "paper max_prob 0.4": 1.2, "lossless": 2.0}

    def fastest(family: str, seen: PaperReport) -> str | None:
        found = at_quality(seen, "B=1", lambda name: name == family)
        return None if found is None else found.way

    def judged(good: dict[str, float], poor: dict[str, float]) -> PaperReport:
        """Those chosen are `good`, full depth has the quality 0.5 by right answers, and all others are `poor`."""
        cells = []
        for cell in report.cells:
            quality = {"right": 0.5} if cell.way == FULL_DEPTH else good if cell.way in chosen else poor
            speedup = [chosen[cell.way]] if cell.way in chosen else cell.speedup
            cells.append(replace(cell, quality=quality, speedup=speedup))
        return replace(report, cells=cells)

    by_text = judged({"rouge_l": 0.99}, {"rouge_l": 0.9})
    assert (fastest("paper", by_text), fastest("lossless", by_text)) == ("paper max_prob 0.2", "lossless")
    assert fastest("paper", judged({"rouge_l": 0.9}, {"rouge_l": 0.9})) is None
    # Where right answers are known, they count: 0.49 of 0.5 is within 2%, and 0.48 is not.
    by_answers = judged({"rouge_l": 0.1, "right": 0.49}, {"rouge_l": 0.99, "right": 0.48})
    assert (fastest("paper", by_answers), fastest("lossless", by_answers)) == ("paper max_prob 0.2", "lossless")


def test_plots_are_pictures_of_every_way(report: PaperReport) -> None:
    plots = paper_plots(report)
    assert set(plots) == {"paper-frontier.svg", "paper-batch.svg", "paper-split.svg", "paper-depth.svg"}
    for picture in plots.values():
        ElementTree.fromstring(picture)
    assert "paper saturation 0.1" in plots["paper-frontier.svg"]
    assert "+ reduced heads" in plots["paper-batch.svg"] and "lossless" in plots["paper-depth.svg"]
