"""Step costs measured at start-up: what the dummy calls ask for."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest

from offramp.engine.costs import CostModel
from offramp.llm.measure import ROW_COUNTS, SOURCE_LENGTHS, measure_costs
from offramp.types.executor import EncoderShape, Executor, ScoreRow, SeqRows, Source, SourceRows


class Recording:
    """An executor that notes the blocks of every call, and the sources that are encoded and read."""

    def __init__(self, num_blocks: int, encoder: EncoderShape | None = None) -> None:
        self.shape = SimpleNamespace(num_segments=3, num_blocks=num_blocks, block_size=16, encoder=encoder)
        self.calls: dict[str, list[list[int]]] = {"run_segment": [], "pass_tokens": [], "score": []}
        self.encoded: list[SourceRows] = []
        self.read: set[Source | None] = set()

    def _note(self, call: str, rows: Sequence[SeqRows | ScoreRow]) -> None:
        assert all(len(row.blocks) == 1 for row in rows)
        self.calls[call].append([row.blocks[0] for row in rows])

    def encode(self, batch: Sequence[SourceRows]) -> None:
        self.encoded += batch

    def run_segment(self, segment: int, batch: Sequence[SeqRows]) -> None:
        self._note("run_segment", batch)
        self.read.update(rows.source for rows in batch)

    def pass_tokens(self, boundary: int, segments: range, batch: Sequence[SeqRows]) -> None:
        self._note("pass_tokens", batch)

    def score(self, boundary: int, rows: Sequence[ScoreRow], needs: frozenset[Any]) -> None:
        self._note("score", rows)

    def synchronize(self) -> None:
        pass


@pytest.mark.parametrize("num_blocks", [1, 5, 100])
def test_rows_that_are_computed_at_the_same_time_share_no_slot(num_blocks: int) -> None:
    executor, costs = Recording(num_blocks), CostModel.from_layers((0, 2, 4, 6))
    measure_costs(cast(Executor, executor), costs)
    for call, lines in (("run_segment", 3), ("score", 3), ("pass_tokens", 2)):
        rounds = executor.calls[call][::lines]
        assert len(executor.calls[call]) == lines * len(rounds)
        assert rounds == [list(range(min(most, num_blocks))) for most in (1, *ROW_COUNTS)]
    assert all(line.price(8) > 0 for line in (*costs.segments, *costs.checks, *costs.passes))
    assert executor.read == {None}


@pytest.mark.parametrize(("num_blocks", "longest"), [(64, 2048), (2, 2048), (64, 7)])
def test_an_encoder_is_priced_by_sources_that_fit_and_rows_read_the_last_of_them(num_blocks: int, longest: int) -> None:
    executor, costs = Recording(8, EncoderShape(longest, num_blocks, 0)), CostModel(3)
    measure_costs(cast(Executor, executor), costs)
    lengths = [len(rows.tokens) for rows in executor.encoded]
    most = min(longest, 16 * num_blocks)
    assert lengths == [1, *(min(length, most) for length in SOURCE_LENGTHS), 1]
    assert all(list(rows.blocks) == list(range(-(-len(rows.tokens) // 16))) for rows in executor.encoded)
    assert executor.read == {Source(1, (0,))}
    assert costs.encoder.price(16) > 0
