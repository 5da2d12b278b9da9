"""Step costs measured at start-up, before any request: a few dummy calls per segment."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from time import perf_counter

from offramp.engine.costs import CostModel, Line
from offramp.types.executor import Executor, ScoreRow, SeqRows, Source, SourceRows
from offramp.types.sampling import SamplingParams

ROW_COUNTS = (1, 8, 1, 8)
SOURCE_LENGTHS = (16, 128, 16, 128)


def measure_costs(executor: Executor, costs: CostModel) -> None:
    """Replace the prices of segments, checks and passes by measured ones, and that of an encoder where there is one.

    Writes to the first blocks of the stores, whose content no sequence holds yet. A store of fewer blocks than rows is
    measured with fewer rows. The first round warms up and is not counted. All rows read one source of one token.
    """
    source = _measure_encoder(executor, costs.encoder)
    top = executor.shape.num_segments
    for number, most in enumerate((1, *ROW_COUNTS)):
        rows = min(most, executor.shape.num_blocks)
        # Each row is a sequence of one token, in a block of its own.
        batch = [SeqRows((0,), (0,), (block,), source) for block in range(rows)]
        scored = [ScoreRow(0, (block,), SamplingParams(), 0) for block in range(rows)]
        calls: list[tuple[Line, Callable[[], object]]] = []
        for s, line in enumerate(costs.segments):
            calls.append((line, partial(executor.run_segment, s, batch)))
        for k, line in enumerate(costs.checks, start=1):
            calls.append((line, partial(executor.score, k, scored, frozenset())))
        for k, line in enumerate(costs.passes, start=1):
            calls.append((line, partial(executor.pass_tokens, k, range(k, top), batch)))
        for line, call in calls:
            seconds = time_call(executor, call)
            if number:
                line.observe(rows, seconds)


def _measure_encoder(executor: Executor, line: Line) -> Source | None:
    """Price sources of `SOURCE_LENGTHS` or the longest there may be; returns one of one token, encoded."""
    encoder = executor.shape.encoder
    if encoder is None:
        return None
    size = executor.shape.block_size
    longest = min(encoder.max_source_len, encoder.num_blocks * size)
    for number, most in enumerate((1, *SOURCE_LENGTHS, 1)):
        length = min(most, longest)
        rows = SourceRows((0,) * length, range(-(-length // size)))
        seconds = time_call(executor, partial(executor.encode, [rows]))
        if number and most > 1:
            line.observe(length, seconds)
    return Source(1, (0,))


def time_call(executor: Executor, call: Callable[[], object]) -> float:
    """Seconds that `call` takes on the executor's device."""
    executor.synchronize()
    start = perf_counter()
    call()
    executor.synchronize()
    return perf_counter() - start
