"""An executor that does nothing, with the shape of SmolLM2-135M at its default exits, and what its calls cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from offramp.engine.costs import CostModel
from offramp.types.executor import EncoderShape, Feature, ModelShape, Scored, ScoreRow, SeqRows, SourceRows

SHAPE = ModelShape(30, (10, 20), 64, 100_000, (), 16, 8192)
LAYERS = (10, 10, 10)
TOP, TEST = 8.0, 1.33
"""Choosing from 49,152 words costs as much as this many layers, and from the 8,192 of an exit head."""


class Idle:
    """Chooses token 1 whatever is asked."""

    shape = SHAPE

    def encode(self, batch: Sequence[SourceRows]) -> None:
        pass

    def run_segment(self, segment: int, batch: Sequence[SeqRows]) -> None:
        pass

    def pass_tokens(self, boundary: int, segments: range, batch: Sequence[SeqRows]) -> None:
        pass

    def score(
        self, boundary: int, rows: Sequence[ScoreRow], needs: frozenset[Feature], *, choose: bool = True
    ) -> list[Scored]:
        return [Scored(1, {}) for _ in rows]

    def read_state(self, position: int, blocks: Sequence[int]) -> None:
        pass

    def write_state(self, position: int, blocks: Sequence[int], state: object) -> None:
        pass

    def features_at(self, boundary: int) -> frozenset[Feature]:
        return frozenset()

    def copy_blocks(self, pairs: Sequence[tuple[int, int]]) -> None:
        pass

    def synchronize(self) -> None:
        pass


class IdleReader(Idle):
    """The same of a model with an encoder."""

    shape = replace(SHAPE, encoder=EncoderShape(1000, 8192, 1))


def price(units: float, rows: int) -> float:
    """Seconds of a call as dear as so many layers: 6 ms for a step of everything, and 1.05 ms for each row of it."""
    return units / (sum(LAYERS) + TOP) * (6.0 + 1.05 * rows) / 1000


def prices() -> CostModel:
    """Of all calls but passes. An encoder is as deep as the model."""
    model = CostModel(len(LAYERS))
    units = [sum(LAYERS), *LAYERS, TEST, TEST, TOP]
    for line, unit in zip([model.encoder, *model.segments, *model.checks], units, strict=True):
        line.a, line.b = price(unit, 0), price(unit, 1) - price(unit, 0)
    return model
