"""The plot of `bench exits`."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from offramp.bench.exit_plot import exit_plot
from offramp.bench.exit_results import ExitCell, ExitReport
from offramp.bench.svg import HEIGHT

SPACE = "{http://www.w3.org/2000/svg}"


def drawn(*cells: ExitCell) -> ElementTree.Element:
    settings = {"name": "toy", "dtype": "offramp int8", "threads": 2}
    return ElementTree.fromstring(exit_plot(ExitReport("2026-01-01", {"cpu": "a <cpu>"}, {}, settings, list(cells))))


def bars(tree: ElementTree.Element) -> list[float]:
    """Heights, without the squares of the legend and the background."""
    return [float(r.get("height", "")) for r in tree.iter(f"{SPACE}rect") if r.get("width") not in ("12", "100%")]


def cell(trace: str, batch: int, policy: str, speedup: list[float], realisation: list[float]) -> ExitCell:
    return ExitCell(trace, batch, policy, speedup=speedup, realisation=realisation)


def test_a_row_for_each_trace_and_a_bar_for_each_policy_and_batch() -> None:
    tree = drawn(
        cell("60% at 10", 1, "compact", [1.0], [0.8]),
        cell("60% at 10", 1, "depth", [2.0], [0.8]),
        cell("60% at 10", 8, "compact", [1.0], [0.8]),
        cell("60% at 10", 8, "depth", [2.0], [0.4]),
        cell("mine.jsonl", 8, "depth", [1.0, 3.0, 4.0], [0.5, 0.6, 0.7]),
    )
    expected = [0.5, 1.0, 0.5, 1.0, 1.0, 1.0, 1.0, 0.5, 0.75, 0.6 / 0.7]
    assert bars(tree) == pytest.approx([HEIGHT * share for share in expected], abs=0.06)
    texts = [t.text for t in tree.iter(f"{SPACE}text")]
    for words in ("60% at 10: speed-up", "60% at 10: realisation", "mine.jsonl: speed-up", "compact", "a <cpu>"):
        assert texts.count(words) == 1
    assert texts.count("B = 8") == 4 and "0.5" in texts


def test_everything_is_inside_the_picture() -> None:
    tree = drawn(*(cell("t", batch, p, [2.0], [1.0]) for batch in (1, 4, 8) for p in ("lockstep", "compact", "depth")))
    width, height = float(tree.get("width", "")), float(tree.get("height", ""))
    for part in [*tree.iter(f"{SPACE}line"), *tree.iter(f"{SPACE}text")]:
        assert all(0 <= float(part.get(name, 0)) <= width for name in ("x", "x1", "x2"))
        assert all(0 <= float(part.get(name, 0)) <= height for name in ("y", "y1", "y2"))


def test_what_was_disturbed_has_no_bar() -> None:
    assert bars(drawn(cell("t", 1, "depth", [], []))) == []
    assert bars(drawn()) == []
