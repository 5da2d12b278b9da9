"""One model and several threads, and processes forked beside it."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from offramp.executors.native import NativeExecutor
from offramp.types.executor import SeqRows
from tests.native.test_model import BLOCKS, TOKENS, hidden_after, make_executor


def test_calls_of_several_threads_wait_for_each_other() -> None:
    executor = make_executor()
    expected = hidden_after(executor, [SeqRows(range(8), TOKENS[:8], BLOCKS), SeqRows(range(4), TOKENS[4:8], (1,))])

    def run(rows: SeqRows) -> None:
        for _ in range(200):
            executor.run_segment(0, [rows])

    rows = (SeqRows(range(8), TOKENS[:8], BLOCKS), SeqRows(range(4), TOKENS[4:8], (1,)))
    threads = [threading.Thread(target=run, args=(r,)) for r in rows]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = np.stack([executor._model.read_hidden(1, slot) for slot in range(16)])
    np.testing.assert_array_equal(found, expected)


class Computing:
    """Runs a segment again and again in another thread: rows enough that it is hardly ever between two calls."""

    def __init__(self, executor: NativeExecutor) -> None:
        tables = [range(16 * i, 16 * i + 16) for i in range(16)]
        self.batch = [SeqRows(range(64), [(7 * i + p) % 97 for p in range(64)], t) for i, t in enumerate(tables)]
        self.executor, self.calls, self._stop = executor, 0, False
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._stop:
            self.executor.run_segment(0, self.batch)
            self.calls += 1

    def __enter__(self) -> Computing:
        self._thread.start()
        while not self.calls:
            time.sleep(0.001)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop = True
        self._thread.join()


OF_ONE_TOKEN: dict[str, Callable[[Any], object]] = {
    "read_hidden": lambda model: model.read_hidden(1, 1023),
    "write_hidden": lambda model: model.write_hidden(2, 1023, np.zeros(32, dtype=np.float32)),
    "read_kv": lambda model: model.read_kv(0, 1023),
    "timings": lambda model: model.timings(),
}


@pytest.mark.parametrize("name", OF_ONE_TOKEN)
def test_what_reads_or_writes_a_token_waits_for_calls_and_lets_python_go_on(name: str) -> None:
    executor = make_executor(num_blocks=256)
    interval, deadline = sys.getswitchinterval(), time.monotonic() + 20
    waited = False
    with Computing(executor) as computing:
        sys.setswitchinterval(1000)  # from here on, Python code of the other thread runs only where we let it
        try:
            while not waited and time.monotonic() < deadline:
                time.sleep(0.0005)
                before = computing.calls
                OF_ONE_TOKEN[name](executor._model)
                waited = computing.calls > before
        finally:
            sys.setswitchinterval(interval)
    assert waited


def fork(run: Callable[[], bool]) -> int:
    """Fork, and give the exit code of a child that runs this: 0 if it was true; negative if the child hung."""
    child = os.fork()
    if child == 0:
        signal.alarm(20)  # a hang must not outlive the test
        good = False
        try:
            good = run()
        finally:
            os._exit(0 if good else 1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_process_forked_while_another_thread_computes_computes_too() -> None:
    executor, idle = make_executor(num_blocks=256), make_executor()
    batch = [SeqRows(range(9), TOKENS, BLOCKS)]
    expected = hidden_after(idle, batch)[:4]

    def same() -> bool:
        return bool((hidden_after(executor, batch)[:4] == expected).all())

    with Computing(executor) as computing:
        for _ in range(4):
            assert fork(same) == 0
        before = computing.calls
        while computing.calls < before + 2:  # the parent goes on
            time.sleep(0.001)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_process_computes_too() -> None:
    executor = make_executor(threads=3)
    batch = [SeqRows(range(9), TOKENS, BLOCKS)]
    expected = hidden_after(executor, batch)
    assert fork(lambda: bool((hidden_after(executor, batch) == expected).all())) == 0
    np.testing.assert_array_equal(hidden_after(executor, batch), expected)
