"""Whole runs of `bench engine` with fake workers: absent peers, reports, resuming."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from offramp.bench.engine_run import REPORT, EngineRun
from offramp.bench.engine_tables import absent_lines
from offramp.bench.engines import Engine, our_engines
from offramp.bench.results import EngineReport, Task, read_report
from offramp.bench.settings import Settings
from offramp.bench.worker import Worker, WorkerFailed
from offramp.errors import InvalidParameter, OfframpError
from tests.bench.toys import FakeWatch, NearWorker, far_worker, toy_input

SETTINGS = Settings(batches=(1, 2), repeats=2, prompt_tokens=4, new_tokens=8, prefill_tokens=16, step_rows=(1, 2))
ENGINES = [*our_engines(["int8"]), Engine("transformers", "float32")]


class Starter:
    """Starts fake workers and keeps them."""

    def __init__(self, **made: NearWorker | WorkerFailed) -> None:
        self.made = made
        self.workers: dict[str, NearWorker] = {}

    def __call__(self, engine: Engine, python: str, log: Path) -> Worker:
        worker = self.made.get(engine.peer, NearWorker())
        if isinstance(worker, WorkerFailed):
            raise worker
        self.workers[engine.peer] = worker
        return worker


def run(
    folder: Path, start: Any = None, engines: list[Engine] = ENGINES, settings: Settings = SETTINGS, **options: Any
) -> EngineReport:
    said: list[str] = []
    made = EngineRun(
        engines,
        settings,
        2,
        folder,
        pythons={"transformers": sys.executable},
        update=lambda done, total, text: said.append(text),
        start=start or Starter(),
        watch=FakeWatch(),
    )
    return made.run(toy_input(), **options)


def asked(start: Starter, peer: str) -> list[str]:
    return [request["do"] for request in start.workers[peer].asked]


def test_a_run_measures_every_task_with_every_engine(tmp_path: Path) -> None:
    report = run(tmp_path)
    tasks = {
        name: [c.task for c in report.cells if c.engine == name] for name in ("offramp int8", "transformers float32")
    }
    assert tasks["offramp int8"] == ["decode/1", "decode/2", "prefill/16", "step/1", "step/2"]
    assert tasks["transformers float32"] == ["decode/1", "decode/2", "prefill/16"]
    assert all(len(c.clean) == 2 for c in report.cells)
    decode = report.cell("offramp int8", Task("decode", 2))
    assert decode is not None and decode.spread == (200.0, 200.0, 200.0)


def test_facts_and_memory_are_kept(tmp_path: Path) -> None:
    record = run(tmp_path).record("transformers float32")
    assert record.facts["load_seconds"] == 1.5 and "peak_bytes" not in record.facts
    # The fake worker holds 1000 bytes more with every request: load, then a warm-up and two repeats of three tasks.
    assert record.peak_bytes == 10_000
    assert record.python == sys.executable


def test_the_report_is_written(tmp_path: Path) -> None:
    report = run(tmp_path)
    assert read_report(tmp_path / REPORT, EngineReport) == report
    assert report.settings["name"] == "toy" and report.settings["threads"] == 2
    assert report.code["commit"] is None or len(report.code["commit"]) >= 12


def test_workers_are_told_what_to_load_and_closed_at_the_end(tmp_path: Path) -> None:
    start = Starter()
    run(tmp_path, start, [*our_engines(["int8@avx2"]), ENGINES[1]])
    load = start.workers["offramp"].asked[0]
    assert (load["do"], load["precision"], load["threads"]) == ("load", "int8@avx2", 2)
    assert load["context"] >= 16 and load["model"]["max_batch"] == 2
    assert all(worker.closed for worker in start.workers.values())


def test_an_absent_peer_is_reported_and_the_others_go_on(tmp_path: Path) -> None:
    made = EngineRun(
        [*ENGINES, Engine("vllm", "float32")],
        SETTINGS,
        2,
        tmp_path,
        pythons={"vllm": "/no/such/python"},
        update=lambda done, total, text: None,
        start=Starter(),
        watch=FakeWatch(),
    )
    report = made.run(toy_input())
    (line,) = absent_lines(report)
    assert line.startswith("vllm float32: `/no/such/python` cannot be run")
    assert not [c for c in report.cells if c.engine == "vllm float32"]
    assert len([c for c in report.cells if c.engine == "transformers float32"]) == 3


def test_a_peer_that_fails_half_way_keeps_what_it_did(tmp_path: Path) -> None:
    report = run(tmp_path, Starter(transformers=NearWorker(fails_at="prefill")))
    assert absent_lines(report) == ["transformers float32: it failed: no prefill today"]
    assert [c.task for c in report.cells if c.engine == "transformers float32"] == ["decode/1", "decode/2"]


def test_without_offramp_there_is_nothing_to_compare(tmp_path: Path) -> None:
    with pytest.raises(OfframpError, match="offramp itself cannot be measured: the core was not built"):
        run(tmp_path, Starter(offramp=WorkerFailed("the core was not built")))


def test_a_run_goes_on_where_it_stopped(tmp_path: Path) -> None:
    first = run(tmp_path, settings=Settings(**{**_fields(SETTINGS), "batches": (1,), "step_rows": ()}))
    start = Starter()
    second = run(tmp_path, start, resume=True)
    assert asked(start, "transformers") == ["load", *["decode"] * 3]
    assert second.cell("offramp int8", Task("decode", 1)) == first.cell("offramp int8", Task("decode", 1))
    assert [c.task for c in second.cells if c.engine == "offramp int8"] == [t.label for t in SETTINGS.tasks]


def test_what_was_finished_is_not_left_out_of_the_report_of_a_run_that_goes_on(tmp_path: Path) -> None:
    first = run(tmp_path)
    fewer = Settings(**{**_fields(SETTINGS), "batches": SETTINGS.batches[:1]})
    with pytest.raises(
        InvalidParameter, match=rf"engine.json` has batches {SETTINGS.batches[1]}, which this run would"
    ):
        run(tmp_path, settings=fewer, resume=True)
    with pytest.raises(InvalidParameter, match=r"engine.json` has engines transformers .*, which this run would"):
        run(tmp_path, engines=ENGINES[:1], resume=True)
    again = run(tmp_path, resume=True)
    assert again.to_dict()["cells"] == first.to_dict()["cells"]
    assert [e.peak_bytes for e in again.engines] == [e.peak_bytes for e in first.engines]


def test_a_new_engine_has_tasks_done_again(tmp_path: Path) -> None:
    run(tmp_path, engines=ENGINES[:1])
    start = Starter()
    run(tmp_path, start, resume=True)
    assert asked(start, "offramp").count("decode") == 6
    assert asked(start, "offramp").count("steps") == 0


def test_a_run_that_was_measured_otherwise_is_not_resumed(tmp_path: Path) -> None:
    run(tmp_path)
    with pytest.raises(InvalidParameter, match="was measured otherwise: repeats, new_tokens differ"):
        run(tmp_path, settings=Settings(**{**_fields(SETTINGS), "repeats": 3, "new_tokens": 9}), resume=True)


def test_resuming_without_a_report_starts_afresh(tmp_path: Path) -> None:
    assert len(run(tmp_path, resume=True).cells) == 8


def test_workers_in_processes_of_their_own(tmp_path: Path) -> None:
    report = run(tmp_path, lambda engine, python, log: far_worker(log))
    assert report.record("offramp int8").facts["version"] == "fake 1"
    assert (report.record("offramp int8").peak_bytes or 0) > 1_000_000
    assert len(report.cells) == 8


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batches": ()}, "names no batch size"),
        ({"batches": (0,)}, "`batch` must be"),
        ({"batches": (2, 2)}, "names a batch size twice"),
        ({"repeats": 0}, "`repeats` must be"),
        ({"prompt_tokens": 0}, "`prompt_tokens` must be"),
        ({"new_tokens": 0}, "`new_tokens` must be"),
        ({"new_tokens": -5}, "`new_tokens` must be"),
        ({"prefill_tokens": -1}, "`prefill` must be a whole number of at least 0"),
        ({"step_rows": (1, 0)}, "`step_rows` must be"),
    ],
)
def test_settings_that_make_no_sense(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidParameter, match=message):
        Settings(**change)


def _fields(settings: Settings) -> dict[str, Any]:
    return {name: getattr(settings, name) for name in Settings.__dataclass_fields__}
