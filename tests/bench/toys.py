"""What benchmarks need, without engines and without a machine: watches, workers, models and reports."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from offramp.bench.engines import WORKERS
from offramp.bench.inputs import ModelInput
from offramp.bench.quiet import Disturbance, Usage, Watch
from offramp.bench.results import Cell, EngineRecord, EngineReport, Repeat
from offramp.bench.worker import ProcessWorker, WorkerFailed
from offramp.executors.torch import TorchExecutor
from offramp.exits.pack import static_exits
from tests.bench.fake_worker import FakeWorker
from tests.toy import DictSource, toy_spec, toy_weights

QUIET, LOUD = Disturbance(0.01, 0.0, True), Disturbance(0.5, 0.0, False)
SPEC = toy_spec(6, max_model_len=256)


class FakeWatch(Watch):
    """Calls stretches quiet or loud as told, one after the other; quiet when there is nothing left to tell."""

    def __init__(self, *verdicts: Disturbance) -> None:
        super().__init__()
        self._verdicts = list(verdicts)

    def read(self) -> Usage | None:
        return None

    def between(self, before: Usage | None, after: Usage | None) -> Disturbance:
        return self._verdicts.pop(0) if self._verdicts else QUIET

    def wait_until_quiet(self, most: float, window: float = 0.3) -> bool:
        return True


@pytest.fixture(autouse=True)
def loud_machine_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests run on machines that others use: wait for nobody, reject nothing."""
    monkeypatch.setattr(Watch, "read", lambda self: None)
    monkeypatch.setattr(Watch, "wait_until_quiet", lambda self, most: True)


class NearWorker:
    """A fake worker in this process that remembers what it was asked."""

    def __init__(self, fails_at: str = "") -> None:
        self.asked: list[dict[str, Any]] = []
        self.closed = False
        self._fails_at = fails_at

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        self.asked.append({"do": do, **arguments})
        if do in (self._fails_at, "ceilings"):
            raise WorkerFailed(f"no {do} today")
        answer: dict[str, Any] = getattr(FakeWorker(), do)(**arguments)
        return {**answer, "peak_bytes": 1000 * len(self.asked)}

    def close(self) -> None:
        self.closed = True


def far_worker(log: Path, timeout: float = 20.0) -> ProcessWorker:
    """A fake worker in a process of its own."""
    script = Path(__file__).with_name("fake_worker.py")
    return ProcessWorker([sys.executable, str(script), str(WORKERS)], {}, log, timeout)


def toy_input(path: Path = Path("model.gguf")) -> ModelInput:
    """A model of which nobody reads the file."""
    return ModelInput("toy", "0123456789abcdef", "hf", path, SPEC, tuple(range(40)))


def toy_executor(exits: tuple[int, ...] = (2, 4), num_blocks: int = 400) -> TorchExecutor:
    """Six layers on the torch executor."""
    weights = {name: np.asarray(array, dtype=np.float32) for name, array in toy_weights(SPEC).items()}
    return TorchExecutor(
        SPEC,
        DictSource(weights),
        static_exits(list(exits), SPEC.num_layers),
        block_size=16,
        num_blocks=num_blocks,
        max_model_len=SPEC.max_model_len,
    )


def record(name: str, **changes: Any) -> EngineRecord:
    """An engine that was measured, unless changed."""
    peer, precision = name.split()
    bits = {"int8": 8, "int4": 4, "q8_0": 8, "q4_0": 4, "float32": 32}[precision.partition("@")[0]]
    facts = {"version": "1", "route": "fake", "isa": "none", "import_seconds": 0.5, "load_seconds": 1.0}
    made = EngineRecord(name, peer, precision, bits, peer == "offramp", "python", facts, 5_000_000)
    for field, value in changes.items():
        setattr(made, field, value)
    return made


def cell(engine: str, task: str, *values: float | None) -> Cell:
    """One value per round, in tokens/s or ms; None for a round that was rejected."""
    unit = "ms" if task.startswith("step") else "tokens/s"
    repeats = [Repeat(i, v or 1.0, 1.0, 0.0, 0.0, v is not None) for i, v in enumerate(values)]
    return Cell(engine, task, unit, repeats)


def report(engines: list[EngineRecord], cells: list[Cell]) -> EngineReport:
    """A report of these."""
    settings = {"name": "toy", "threads": 2}
    return EngineReport("2026-01-01", {"cpu": "a <cpu>", "cores": 2}, {}, settings, engines, cells)
