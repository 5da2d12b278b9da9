"""How far a download or a batch has come: a bar on a terminal, a line every 10 seconds on a pipe.

`OFFRAMP_NO_PROGRESS`, set to anything, switches both off.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from offramp.models import Progress


LINE_SECONDS = 10.0

Update = Callable[[int, int, str], None]
"""Takes how much is done, of how much, and a phrase that says so."""

OnBatch = Callable[[int, int, int, float], None]
"""Takes outputs done, outputs in all, tokens so far, and their mean exit layer."""


@contextmanager
def show_progress(stream: TextIO | None = None, clock: Callable[[], float] = monotonic) -> Iterator[Update]:
    """Show progress on stderr while the block runs. Nothing is drawn before the first update."""
    stream = sys.stderr if stream is None else stream
    if os.environ.get("OFFRAMP_NO_PROGRESS"):
        yield lambda done, total, text: None
    elif stream.isatty():
        with _bar(stream) as update:
            yield update
    else:
        yield _Lines(stream, clock)


class _Lines:
    """Prints the latest phrase, at most every 10 seconds, never in the first ten."""

    def __init__(self, stream: TextIO, clock: Callable[[], float]) -> None:
        self._stream, self._clock = stream, clock
        self._last = clock()

    def __call__(self, done: int, total: int, text: str) -> None:
        if self._clock() - self._last >= LINE_SECONDS:
            self._last = self._clock()
            print(text, file=self._stream, flush=True)


@contextmanager
def _bar(stream: TextIO) -> Iterator[Update]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    text_column = TextColumn("{task.description}", markup=False)
    with Progress(BarColumn(), text_column, console=Console(file=stream), transient=True) as bar:
        task = bar.add_task("", visible=False)

        def update(done: int, total: int, text: str) -> None:
            bar.update(task, completed=done, total=total, description=text, visible=done < total)

        yield update


def on_download(update: Update, clock: Callable[[], float] = monotonic) -> Progress:
    """A download callback: bytes, rate and time to go."""
    start = clock()

    def report(done_bytes: int, total_bytes: int, what: str) -> None:
        seconds = max(clock() - start, 1e-9)
        rate = done_bytes / seconds
        left = f", {(total_bytes - done_bytes) / rate:.0f} s to go" if 0 < done_bytes < total_bytes else ""
        megabytes = f"{done_bytes / 1e6:.1f} of {total_bytes / 1e6:.1f} MB, {rate / 1e6:.1f} MB/s"
        update(done_bytes, total_bytes, f"{what}: {megabytes}{left}")

    return report


def on_batch(update: Update, depth: int, clock: Callable[[], float] = monotonic) -> OnBatch:
    """A batch callback: outputs done, tokens per second, mean exit layer."""
    start = clock()

    def report(done: int, total: int, tokens: int, mean_exit_layer: float) -> None:
        rate = tokens / max(clock() - start, 1e-9)
        update(done, total, f"{done} of {total} outputs, {rate:.1f} tokens/s, depth {mean_exit_layer:.1f}/{depth}")

    return report
