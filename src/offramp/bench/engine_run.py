"""`offramp bench engine`: every engine in its own process, one report."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from offramp.bench.engines import Engine, interpreter, why_absent
from offramp.bench.inputs import ModelInput
from offramp.bench.quiet import Watch
from offramp.bench.results import (
    EngineRecord,
    EngineReport,
    Task,
    begin_report,
    check_keeps,
    earlier_report,
    write_json,
)
from offramp.bench.rounds import Rounds
from offramp.bench.settings import Settings
from offramp.bench.worker import ProcessWorker, Worker, WorkerFailed
from offramp.errors import OfframpError
from offramp.models import T5Spec

REPORT = "engine.json"
RESUMABLE = ("batches", "step_rows", "max_wait")
"""Settings that may differ from those of the run that is resumed."""

Update = Callable[[int, int, str], None]
"""Told how much is done, of how much, and a phrase that says so."""

Start = Callable[[Engine, str, Path], Worker]
"""Starts an engine's worker with an interpreter; the path is where it may log."""


def start_process(engine: Engine, python: str, log: Path, threads: int) -> Worker:
    """The engine's worker program in a process of its own."""
    env = {"OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false", **engine.environment}
    return ProcessWorker([python, str(engine.script)], env, log)


class EngineRun:
    """One run. `folder` keeps the report as it grows, and what the workers print on stderr."""

    def __init__(
        self,
        engines: Sequence[Engine],
        settings: Settings,
        threads: int,
        folder: Path,
        *,
        pythons: Mapping[str, str],
        update: Update,
        start: Start | None = None,
        watch: Watch | None = None,
    ) -> None:
        self.engines, self.settings, self.threads, self.folder = list(engines), settings, threads, folder
        self._pythons = {e.peer: sys.executable if e.ours else interpreter(e.peer, pythons) for e in engines}
        self._update, self._watch = update, watch or Watch()
        self._start = start or (lambda engine, python, log: start_process(engine, python, log, threads))
        self._done, self._total = 0, 1

    def run(self, model: ModelInput, resume: bool = False) -> EngineReport:
        """Measure everything, writing the report after every task.

        Raises:
            InvalidParameter: `resume`, and what is there was measured otherwise.
            OfframpError: no engine of ours can be measured.
        """
        identity = self.settings.identity(model.identity, self.threads)
        report = begin_report(EngineReport, {"name": model.name, **identity})
        earlier = earlier_report(self.folder / REPORT, report, RESUMABLE) if resume else None
        if earlier is not None:
            there = [record.name for record in earlier.present]
            check_keeps(self.folder / REPORT, "engines", there, [engine.name for engine in self.engines])
        with ExitStack() as stack:
            workers = self._load_all(report, model, stack)
            if not any(e.ours for e in report.present):
                reason = next((e.absent for e in report.engines if e.ours), "none was asked for")
                raise OfframpError(f"offramp itself cannot be measured: {reason}")
            self._measure_ceilings(report, workers)
            rounds = Rounds(
                workers,
                model.prompts,
                self._watch,
                repeats=self.settings.repeats,
                prompt_tokens=self.settings.prompt_tokens,
                new_tokens=self.settings.new_tokens,
                max_wait=self.settings.max_wait,
                on_repeat=self._say,
                on_peak=lambda name, peak: _note_peak(report.record(name), peak),
            )
            self._measure_all(report, rounds, earlier)
        return report

    def _load_all(self, report: EngineReport, model: ModelInput, stack: ExitStack) -> dict[str, Worker]:
        workers: dict[str, Worker] = {}
        t5, pythons = isinstance(model.spec, T5Spec), self._pythons
        absent = {e.peer: None if e.ours else why_absent(e.peer, pythons[e.peer], t5) for e in self.engines}
        wanted = {e.precision for e in self.engines if not e.ours and absent[e.peer] is None}
        batch = max(self.settings.batches)
        files = model.for_workers(sorted(wanted), batch, lambda text: self._update(0, 1, text))
        for engine in self.engines:
            self._update(0, 1, f"loading {engine.name}")
            python = self._pythons[engine.peer]
            record = EngineRecord(engine.name, engine.peer, engine.precision, engine.bits, engine.ours, python)
            report.engines.append(record)
            record.absent = absent[engine.peer]
            if record.absent is not None:
                continue
            log = self.folder / f"{engine.name.replace(' ', '-')}.log"
            try:
                worker = self._start(engine, python, log)
                stack.callback(worker.close)
                facts = worker.ask("load", model=files, **self._load_arguments(engine))
            except WorkerFailed as error:
                record.absent = error.message
                continue
            _note_peak(record, facts.pop("peak_bytes"))
            record.facts = {**facts, "weight_bytes": model.weight_bytes(engine)} if engine.ours else facts
            workers[engine.name] = worker
        return workers

    def _load_arguments(self, engine: Engine) -> dict[str, Any]:
        precision = engine.precision + (f"@{engine.variant}" if engine.ours and engine.variant else "")
        return {"precision": precision, "threads": self.threads, "context": self.settings.context}

    def _measure_ceilings(self, report: EngineReport, workers: Mapping[str, Worker]) -> None:
        for engine in report.present:
            if engine.ours and report.ceilings is None:
                self._watch.wait_until_quiet(self.settings.max_wait)
                try:
                    answer = workers[engine.name].ask("ceilings", threads=self.threads)
                except WorkerFailed:
                    continue
                answer.pop("peak_bytes")
                report.ceilings = answer

    def _measure_all(self, report: EngineReport, rounds: Rounds, earlier: EngineReport | None) -> None:
        tasks = {task: self._who(report, task) for task in self.settings.tasks}
        self._total = sum(len(names) for names in tasks.values()) * (self.settings.repeats + 1)
        missing = []
        for group in _together(list(tasks)):
            names = tasks[group[0]]
            kept = None if earlier is None else _kept(earlier, report, group, names)
            if earlier is None or kept is None:
                missing.append(group)
                continue
            report.cells += kept
            self._done += len(group) * len(names) * (self.settings.repeats + 1)
            for name in names:
                _note_peak(report.record(name), earlier.record(name).peak_bytes or 0)
        order = {task.label: place for place, task in enumerate(tasks)}
        for group in missing:
            report.cells += rounds.measure(group, tasks[group[0]])
            report.cells.sort(key=lambda cell: order[cell.task])
            for name, reason in rounds.failed.items():
                report.record(name).absent = f"it failed: {reason}"
            write_json(self.folder / REPORT, report.to_dict())
        write_json(self.folder / REPORT, report.to_dict())

    def _who(self, report: EngineReport, task: Task) -> list[str]:
        return [e.name for e in report.present if e.ours or task.kind != "step"]

    def _say(self, name: str, task: Task, number: int) -> None:
        what = f"{task.kind} {task.size}, {name}, " + (f"repeat {number}" if number else "warming up")
        self._update(self._done, self._total, f"{self._done} of {self._total}: {what}")
        self._done += 1


def _note_peak(record: EngineRecord, peak: int) -> None:
    record.peak_bytes = max(record.peak_bytes or 0, peak)


def _together(tasks: list[Task]) -> list[list[Task]]:
    """Tasks that are compared with one another take turns: steps of several sizes."""
    steps = [task for task in tasks if task.kind == "step"]
    return [[task] for task in tasks if task.kind != "step"] + ([steps] if steps else [])


def _kept(earlier: EngineReport, report: EngineReport, tasks: list[Task], names: list[str]) -> list[Any] | None:
    """The cells of tasks that an earlier run finished with these very engines; None if they have to be done."""
    cells = [earlier.cell(name, task) for task in tasks for name in names]
    versions = {e.name: e.facts.get("version") for e in earlier.engines}
    same = all(versions.get(name) == report.record(name).facts.get("version") for name in names)
    return cells if same and None not in cells else None
