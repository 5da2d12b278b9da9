"""The tables and the plot of `bench engine`."""

from __future__ import annotations

from xml.etree import ElementTree

from offramp.bench.engine_tables import best_peer, rejected_line, tables
from offramp.bench.results import EngineReport, Task
from offramp.bench.svg import plot
from tests.bench.toys import cell, record, report


def both_widths() -> EngineReport:
    """Ours at 8 and 4 bits, llama.cpp at both, Transformers at 32."""
    names = ("offramp int8", "offramp int4", "llama.cpp q8_0", "llama.cpp q4_0", "transformers float32")
    speeds = {
        "offramp int8": (200.0, 210.0, 190.0),
        "offramp int4": (300.0, 300.0, 300.0),
        "llama.cpp q8_0": (100.0, 100.0, 100.0),
        "llama.cpp q4_0": (240.0, 240.0, 240.0),
        "transformers float32": (20.0, None, 20.0),
    }
    cells = [cell(name, "decode/1", *speeds[name]) for name in names]
    cells += [cell(name, "prefill/512", 400.0, 400.0) for name in names[:3]]
    cells += [cell("offramp int8", f"step/{rows}", 5.0, 4.0) for rows in (1, 2)]
    cells += [cell("offramp int8", "step/8", 15.0, 10.0)]
    return report([record(name) for name in names], cells)


def table(title: str) -> dict[str, tuple[str, ...]]:
    """The rows of the table whose title starts so, by their first column."""
    found = next(t for t in tables(both_widths()) if t.title.startswith(title))
    assert all(len(row) == len(found.columns) for row in found.rows)
    return {row[0]: row[1:] for row in found.rows}


def test_speeds() -> None:
    rows = table("tokens/s")
    assert rows["offramp int8"] == ("8", "200 (190-210)", "400 (400-400)")
    assert rows["llama.cpp q4_0"] == ("4", "240 (240-240)", "-")


def test_ratios_are_ours_over_theirs() -> None:
    rows = table("offramp int8 / peer")
    assert rows["llama.cpp q8_0"] == ("8", "2.00x (1.90-2.10)", "1.00x (1.00-1.00)")
    assert rows["transformers float32"] == ("32", "9.75x (9.50-10.00)", "-")
    assert "offramp int4" not in rows


def test_the_best_peer_is_of_the_same_class() -> None:
    made = both_widths()
    best = {e.bits: best_peer(made, Task("decode", 1), e) for e in made.engines if e.ours}
    assert {bits: None if b is None else b.name for bits, b in best.items()} == {
        4: "llama.cpp q4_0",
        8: "llama.cpp q8_0",
    }
    rows = table("against the best peer")
    assert rows["offramp int8"] == ("2.00x llama.cpp q8_0", "1.00x llama.cpp q8_0")
    assert rows["offramp int4"] == ("1.25x llama.cpp q4_0", "-")


def test_one_that_is_held_to_an_instruction_set_meets_peers_that_are_too() -> None:
    names = ["offramp int8", "offramp int8@avx2", "openvino q8_0", "openvino q8_0@avx2", "llama.cpp q8_0"]
    cells = [cell(name, "decode/1", 100.0 - i) for i, name in enumerate(names)]
    made = report([record(name) for name in names], cells)
    free, held = (best_peer(made, Task("decode", 1), made.record(name)) for name in names[:2])
    assert free is not None and free.name == "openvino q8_0"
    assert held is not None and held.name == "openvino q8_0@avx2"
    without = report([r for r in made.engines if r.name != names[3]], cells)
    best = best_peer(without, Task("decode", 1), without.record(names[1]))
    assert best is not None and best.name == "openvino q8_0"


def test_steps_are_compared_with_one_row() -> None:
    rows = table("one step")
    assert rows == {"offramp int8": ("4.50 ms", "1.00x (1.00-1.00)", "2.75x (2.50-3.00)")}


def test_who_was_there() -> None:
    assert table("engines")["offramp int8"] == ("1", "0.5 + 1.0 s", "5 MB", "none", "fake")


def test_one_sequence_is_held_against_the_memory() -> None:
    made = both_widths()
    made.record("offramp int8").facts["weight_bytes"] = 100_000_000
    made.record("offramp int4").facts["weight_bytes"] = None
    assert not any("against the memory" in t.title for t in tables(made))
    made.ceilings = {"gb_per_s": 25.0}
    (found,) = (t for t in tables(made) if "against the memory" in t.title)
    assert found.rows == [("offramp int8", "100 MB", "20.0", "25.0", "80%")]


def test_a_cell_without_a_clean_repeat_says_so() -> None:
    made = report([record("offramp int8"), record("llama.cpp q8_0")], [cell("offramp int8", "decode/1", None)])
    assert tables(made)[0].rows == [("offramp int8", "8", "disturbed")]
    assert rejected_line(made).startswith("1 of 1 repeats were rejected")


def test_a_system_that_does_not_say_is_named() -> None:
    made = both_widths()
    object.__setattr__(made.cells[0].repeats[0], "others", None)
    assert rejected_line(made).startswith("this system does not say")


def test_the_plot_has_a_bar_for_each_engine_and_batch() -> None:
    text = plot(both_widths())
    tree = ElementTree.fromstring(text)
    space = "{http://www.w3.org/2000/svg}"
    bars = [r for r in tree.iter(f"{space}rect") if float(r.get("height", "0").rstrip("%")) not in (12.0, 100.0)]
    assert len(bars) == 5
    heights = [float(bar.get("height", "0")) for bar in bars]
    assert heights[1] / heights[2] > 2.99 and heights[1] / heights[2] < 3.01
    texts = [t.text for t in tree.iter(f"{space}text")]
    assert "B = 1" in texts and "llama.cpp q4_0" in texts and "a <cpu>" in texts


def test_a_plot_of_nothing_is_still_a_picture() -> None:
    ElementTree.fromstring(plot(report([], [])))
