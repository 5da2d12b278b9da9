"""Whole runs of `bench exits` on a toy model."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from offramp import _native
from offramp.bench import exit_run
from offramp.bench.engines import Engine
from offramp.bench.exit_results import ExitReport
from offramp.bench.exit_run import REPORT, ExitRun, ExitSettings, held_to, write_pack
from offramp.bench.exit_tables import exit_rejected_line, exit_tables
from offramp.bench.exit_traces import made_up_traces
from offramp.bench.results import read_report
from offramp.bench.rounds import TRIES
from offramp.bench.windows import run_window
from offramp.errors import InvalidParameter
from offramp.exits.read import read_pack
from tests.bench.toys import LOUD, QUIET, SPEC, FakeWatch, toy_executor, toy_input

SETTINGS = ExitSettings(batches=(1, 2), repeats=2, prompt_tokens=5, new_tokens=4)
TRACES = made_up_traces(6, (2, 4), (0.6,))


def run(
    folder: Path, settings: ExitSettings = SETTINGS, watch: FakeWatch | None = None, resume: bool = False
) -> ExitRun:
    said: list[tuple[int, int]] = []
    made = ExitRun(
        settings,
        folder,
        {"name": "toy"},
        update=lambda done, total, text: said.append((done, total)),
        watch=watch or FakeWatch(),
        resume=resume,
    )
    made.replay(toy_executor(), toy_input().prompts, TRACES)
    assert all(done < total for done, total in said)
    return made


def test_a_run_has_a_cell_for_each_trace_batch_and_policy(tmp_path: Path) -> None:
    report = run(tmp_path).report
    keys = [(c.trace, c.batch, c.policy) for c in report.cells]
    policies = ("lockstep", "compact", "depth")
    assert keys == [(t, b, p) for b in (1, 2) for t in ("60% at 2", "60% at 4") for p in policies]
    for cell in report.cells:
        assert len(cell.speedup) == len(cell.realisation) == len(cell.efficiency) == 2
        assert sum(cell.split.values()) == pytest.approx(1.0)
        assert all(0 < value <= 1.5 for value in cell.efficiency)
        useful = [split["layers"] + split["top"] for split in (*cell.splits, *cell.off_splits)]
        assert cell.realisation_by_shares == [pytest.approx(useful[i] / useful[i + 2]) for i in range(2)]


def test_json_has_what_the_description_names(tmp_path: Path) -> None:
    run(tmp_path)
    values = json.loads((tmp_path / REPORT).read_text(encoding="utf-8"))
    assert (values["format"], values["kind"], values["rejected"]) == (1, "exits", 0)
    assert values["settings"]["policies"] == ["lockstep", "compact", "depth"] and values["settings"]["name"] == "toy"
    cell = values["cells"][0]
    assert {"off_ms", "on_ms", "speedup", "realisation", "efficiency", "split", "off_split"} <= cell.keys()
    assert {"encoder", "layers", "top", "checks", "fill", "python"} == cell["split"].keys()


def test_tables_have_a_row_for_each_cell(tmp_path: Path) -> None:
    report = run(tmp_path).report
    for table in exit_tables(report):
        assert [row[:3] for row in table.rows] == [(c.trace, str(c.batch), c.policy) for c in report.cells]
        assert all(len(row) == len(table.columns) for row in table.rows)


def test_disturbed_runs_are_done_again_or_left_out(tmp_path: Path) -> None:
    settings = ExitSettings(batches=(1,), policies=("compact",), repeats=2, prompt_tokens=5, new_tokens=4)
    # The first trace: exits off at the second try; exits on not at all, then a quiet round.
    report = run(tmp_path, settings, FakeWatch(LOUD, QUIET, *[LOUD] * TRIES, QUIET, QUIET)).report
    assert [len(cell.speedup) for cell in report.cells] == [1, 2]
    assert report.rejected == 1 + TRIES
    assert exit_rejected_line(report).startswith(f"{1 + TRIES} repeats were rejected")


def test_a_cell_that_was_always_disturbed_says_so(tmp_path: Path) -> None:
    settings = ExitSettings(batches=(1,), policies=("depth",), repeats=1, prompt_tokens=5, new_tokens=4)
    report = run(tmp_path, settings, FakeWatch(*[LOUD] * 100)).report
    speeds, splits = exit_tables(report)
    assert "disturbed" in speeds.rows[0] and splits.rows[0][3:] == ("-",) * 5


def windows_of(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The batch size of every window that is measured from now on."""
    seen: list[int] = []

    def counted(*arguments: Any) -> Any:
        seen.append(len(arguments[3]))
        return run_window(*arguments)

    monkeypatch.setattr(exit_run, "run_window", counted)
    return seen


def test_a_run_goes_on_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = run(tmp_path, replace(SETTINGS, batches=(1,))).report
    windows = windows_of(monkeypatch)
    second = run(tmp_path, resume=True).report
    assert windows == [2] * 2 * 2 * 4, "two traces, two rounds, three policies and exits off"
    assert [c.to_dict() for c in second.cells[:6]] == [c.to_dict() for c in first.cells]
    assert [(c.batch, len(c.speedup)) for c in second.cells[6:]] == [(2, 2)] * 6
    assert read_report(tmp_path / REPORT, ExitReport).to_dict() == second.to_dict()


def test_a_trace_that_was_broken_off_is_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(Exception):
        pass

    def broken(*arguments: Any) -> Any:
        if len(windows) == 11:  # eight are one trace
            raise Broken
        windows.append(1)
        return run_window(*arguments)

    windows: list[int] = []
    monkeypatch.setattr(exit_run, "run_window", broken)
    with pytest.raises(Broken):
        run(tmp_path)
    again = windows_of(monkeypatch)
    assert len(run(tmp_path, resume=True).report.cells) == 12 and len(again) == 3 * 8


def test_a_policy_that_is_not_there_yet_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(tmp_path, replace(SETTINGS, policies=("depth",)))
    windows = windows_of(monkeypatch)
    assert run(tmp_path, replace(SETTINGS, policies=("depth",)), resume=True).report.cells and not windows
    assert run(tmp_path, resume=True).report.cells and len(windows) == 2 * 2 * 2 * 4


def test_a_run_that_was_measured_otherwise_is_not_resumed(tmp_path: Path) -> None:
    run(tmp_path)
    with pytest.raises(InvalidParameter, match="was measured otherwise: prompt_tokens, head_words differ"):
        run(tmp_path, replace(SETTINGS, prompt_tokens=6, head_words=8), resume=True)


def test_resuming_without_a_report_starts_afresh(tmp_path: Path) -> None:
    assert len(run(tmp_path, resume=True).report.cells) == 12


def test_an_instruction_set_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OFFRAMP_ISA", raising=False)
    before = _native.isa()
    other = _native.supported_isas()[-1 if before != "portable" else 0]
    with pytest.raises(ZeroDivisionError), held_to(other):
        assert _native.isa() == other
        raise ZeroDivisionError
    assert _native.isa() == before and "OFFRAMP_ISA" not in os.environ


def test_an_instruction_set_that_is_not_here() -> None:
    before = _native.isa()
    with pytest.raises(InvalidParameter, match="`--dtype` cannot hold `@neon` on this machine"), held_to("neon"):
        pass
    assert _native.isa() == before


@pytest.mark.parametrize("variant", ["", "portable"])
def test_a_model_runs_on_the_instruction_set_asked_for(
    variant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Opened:
        def __init__(self, *_: Any, **__: Any) -> None:
            self.isa = _native.isa()

        def __enter__(self) -> Opened:
            return self

        def __exit__(self, *_: object) -> None:
            pass

    monkeypatch.setattr(exit_run, "LLM", Opened)
    before = _native.isa()
    with exit_run.open_llm(Engine("offramp", "int8", variant), "toy", 1, tmp_path, SETTINGS) as llm:
        assert llm.isa == _native.isa() == (variant or before)  # type: ignore[attr-defined]
    assert _native.isa() == before


@pytest.mark.parametrize(("words", "vocabulary"), [(0, None), (48, None), (100, None), (8, tuple(range(8)))])
def test_the_pack_scores_as_many_words_as_asked(tmp_path: Path, words: int, vocabulary: tuple[int, ...] | None) -> None:
    pack = read_pack(write_pack(tmp_path / "pack", SPEC, (2, 4), words))
    assert pack.layers == (2, 4)
    assert [pack.vocabularies.get(e.vocabulary or "") for e in pack.exits] == [vocabulary] * 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batches": ()}, "`--batch` must name batch sizes"),
        ({"batches": (4, 4)}, "each once"),
        ({"policies": ("deep",)}, "`policies` cannot be 'deep'"),
        ({"head_words": -1}, "`head_words` must be"),
        ({"repeats": 0}, "`repeats` must be"),
        ({"policies": ("depth", "depth")}, "`--policies` must name policies, each once"),
        ({"policies": ()}, "`--policies` must name policies, each once"),
        ({"prompt_tokens": 0}, "`prompt_tokens` must be"),
        ({"new_tokens": 0}, "`new_tokens` must be"),
        ({"new_tokens": -20}, "`new_tokens` must be"),
    ],
)
def test_settings_that_make_no_sense(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidParameter, match=message):
        ExitSettings(**change)
