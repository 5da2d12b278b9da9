"""Talking with a worker in another process."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from offramp.bench.worker import ProcessWorker, WorkerFailed
from tests.bench.toys import far_worker

LOAD = {"model": {}, "threads": 2, "context": 10}


@contextmanager
def worker(folder: Path, timeout: float = 20.0) -> Iterator[ProcessWorker]:
    made = far_worker(folder / "log", timeout)
    try:
        yield made
    finally:
        made.close()


def test_requests_are_answered_in_order(tmp_path: Path) -> None:
    with worker(tmp_path) as asked:
        loaded = asked.ask("load", precision="float32", **LOAD)
        assert (loaded["version"], loaded["threads"]) == ("fake 1", 2)
        assert loaded["peak_bytes"] > 1_000_000
        decoded = asked.ask("decode", prompts=[[1], [2]], new_tokens=5)
        assert (decoded["tokens"], decoded["seconds"]) == (10, 0.05)
    assert "talks on standard output" in (tmp_path / "log").read_text(encoding="utf-8")


def test_a_worker_that_raises_says_so_and_lives_on(tmp_path: Path) -> None:
    with worker(tmp_path) as asked:
        with pytest.raises(WorkerFailed, match=r"^ValueError: thirteen$"):
            asked.ask("prefill", prompt=[0] * 13)
        assert asked.ask("prefill", prompt=[0] * 5)["tokens"] == 5


def test_what_a_worker_cannot_do_is_refused(tmp_path: Path) -> None:
    with worker(tmp_path) as asked:
        for verb in ("ceilings", "__init__", "exit"):
            with pytest.raises(WorkerFailed, match=f"this worker cannot `{verb}`"):
                asked.ask(verb)


def test_a_worker_that_dies_leaves_its_last_words(tmp_path: Path) -> None:
    with worker(tmp_path) as asked, pytest.raises(WorkerFailed, match=r"^it ended with code 7: .*standard output"):
        asked.ask("load", precision="float16", **LOAD)


def test_a_worker_that_is_silent_is_ended(tmp_path: Path) -> None:
    with worker(tmp_path, timeout=0.5) as asked, pytest.raises(WorkerFailed, match="it did not answer within 0 s"):
        asked.ask("prefill", prompt=[0] * 99)


def test_a_command_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(WorkerFailed, match="`/no/python` cannot be run: No such file"):
        ProcessWorker(["/no/python"], {}, tmp_path / "log")


def test_a_program_that_is_no_worker(tmp_path: Path) -> None:
    stopped = ProcessWorker([sys.executable, "-c", "raise SystemExit(3)"], {}, tmp_path / "log")
    with pytest.raises(WorkerFailed, match="it ended with code 3"):
        stopped.ask("load", precision="float32", **LOAD)
    stopped.close()
    stopped.close()
