"""An executor over any oracle `Model`, paged slot by slot, that refuses to read what was not written for the reader.

Each slot remembers which token of which history lies there. A row may attend to a slot only if it holds the token
before it of the same history, of the same source, at the right position, written in every layer asked for. Slots of the
store of sources remember which token of which source lies there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from offramp.types.executor import EncoderShape, Feature, ModelShape, Scored, ScoreRow, SeqRows, Source, SourceRows
from tests.oracle.model import Array, Model
from tests.oracle.scoring import Context, choose_at_top, opinion

START = 1
"""The decoder start token of models with an encoder."""


class Written(NamedTuple):
    """K and V of one token in one layer; `passed_from` is the boundary it was passed up from, None if it ran."""

    key: Array
    value: Array
    passed_from: int | None


@dataclass
class Slot:
    """What lies at one slot. `history` is the tokens up to and including this one, `source` what they read."""

    history: tuple[int, ...]
    source: tuple[int, ...] = ()
    hidden: dict[int, Array] = field(default_factory=dict)
    layers: dict[int, Written] = field(default_factory=dict)
    deep: Array | None = None

    def copy(self) -> Slot:
        return Slot(self.history, self.source, dict(self.hidden), dict(self.layers), self.deep)


class PagedExecutor:
    """An `Executor` in plain Python. `writes` counts, per block, the calls that wrote to it."""

    def __init__(self, model: Model, *, block_size: int, num_blocks: int, num_source_blocks: int = 64) -> None:
        self.model = model
        self.slots: dict[int, Slot] = {}
        self.sources: dict[int, tuple[tuple[int, ...], int]] = {}  # by slot: the source, and the position in it
        self.writes: Counter[int] = Counter()
        self._shape = ModelShape(
            num_layers=model.num_layers,
            exit_layers=model.exit_layers,
            vocab_size=model.vocab_size,
            max_model_len=model.max_model_len,
            eos_token_ids=model.eos_token_ids,
            block_size=block_size,
            num_blocks=num_blocks,
            reads_past=True,
            encoder=EncoderShape(model.max_source_len, num_source_blocks, START) if model.max_source_len else None,
        )

    @property
    def shape(self) -> ModelShape:
        return self._shape

    def slot(self, blocks: Sequence[int], position: int) -> Slot:
        """The slot of a position, checked to continue the history of the one before it."""
        found = self.slots.get(self._index(blocks, position))
        assert found is not None, f"position {position} was never written"
        before = self.slots[self._index(blocks, position - 1)] if position else Slot((), found.source)
        assert found.history[:-1] == before.history, f"position {position} belongs to another history"
        assert found.source == before.source, f"position {position} belongs to another source"
        return found

    def encode(self, batch: Sequence[SourceRows]) -> None:
        slots = [self._index(rows.blocks, position) for rows in batch for position in range(len(rows.tokens))]
        assert len(slots) == len(set(slots)), "two tokens of sources are written to the same slot"
        for rows in batch:
            for position in range(len(rows.tokens)):
                self.sources[self._index(rows.blocks, position)] = tuple(rows.tokens), position

    def source(self, read: Source | None) -> tuple[int, ...]:
        """The tokens of a source that is read, checked to lie there whole and in order."""
        if read is None:
            assert self._shape.encoder is None, "rows without a source"
            return ()
        found = [self.sources.get(self._index(read.blocks, position)) for position in range(read.length)]
        assert found[0] is not None, "a source is read that was never encoded"
        tokens = found[0][0]
        assert found == [(tokens, position) for position in range(len(tokens))], "a source is not whole"
        return tokens

    def run_segment(self, segment: int, batch: Sequence[SeqRows]) -> None:
        self._count_writes(batch)
        for rows in batch:
            source = self.source(rows.source)
            if segment == 0:
                self._embed(rows, source)
            slots = [self.slot(rows.blocks, position) for position in rows.positions]
            assert {slot.source for slot in slots} <= {source}, "rows were begun with another source"
            hidden = np.stack([slot.hidden[segment] for slot in slots])
            for layer in self._layers(range(segment, segment + 1)):
                hidden = self._run_layer(self.model.reading(source), layer, hidden, rows)
            for slot, row in zip(slots, hidden, strict=True):
                slot.hidden[segment + 1] = row

    def pass_tokens(self, boundary: int, segments: range, batch: Sequence[SeqRows]) -> None:
        self._count_writes(batch)
        for rows in batch:
            for position in rows.positions:
                slot = self.slot(rows.blocks, position)
                for layer in self._layers(segments):
                    key, value = self.model.key_value(layer, slot.hidden[boundary][None], [position])
                    slot.layers[layer] = Written(key[0], value[0], boundary)

    def score(
        self, boundary: int, rows: Sequence[ScoreRow], needs: frozenset[Feature], *, choose: bool = True
    ) -> list[Scored]:
        return [self._score(boundary, row, needs, choose) for row in rows]

    def read_state(self, position: int, blocks: Sequence[int]) -> object:
        return self.slot(blocks, position).deep

    def write_state(self, position: int, blocks: Sequence[int], state: object) -> None:
        assert isinstance(state, np.ndarray)
        self.slot(blocks, position).deep = state

    def features_at(self, boundary: int) -> frozenset[Feature]:
        features: set[Feature] = {"max_prob", "margin", "entropy", "classifier"}
        return frozenset(features | ({"saturation"} if boundary > 1 else set()))

    def copy_blocks(self, pairs: Sequence[tuple[int, int]]) -> None:
        size = self._shape.block_size
        for source, target in pairs:
            self.writes[target] += 1
            for offset in range(size):
                self.slots.pop(target * size + offset, None)
                if source * size + offset in self.slots:
                    self.slots[target * size + offset] = self.slots[source * size + offset].copy()

    def synchronize(self) -> None:
        """Nothing is ever under way."""

    def _score(self, boundary: int, row: ScoreRow, needs: frozenset[Feature], choose: bool) -> Scored:
        slot = self.slot(row.blocks, row.position)
        if row.sampling.reads_history:
            assert slot.history == (*row.prompt, *row.output), "scored with another history"
        prompt, output = list(row.prompt), list(row.output)
        if not row.sampling.reads_history:
            prompt = list(slot.history)
        context = Context(prompt, output, row.sampling, row.seed, set(row.banned))
        if boundary == self._shape.num_segments:
            slot.deep = slot.hidden[boundary]
            return Scored(choose_at_top(self.model, slot.hidden[boundary], context), {})
        previous = slot.hidden[boundary - 1] if boundary > 1 else None
        past = self.slot(row.blocks, row.position - 1).deep
        assert past is not None, f"nobody chose the token after position {row.position - 1}"
        said = opinion(self.model, boundary, slot.hidden[boundary], previous, past, context)
        slot.deep = said.state
        plogp = [p * np.log(p) for p in said.probabilities if p > 0]
        features: dict[Feature, float | None] = {
            "max_prob": float(said.probabilities[0]),
            "margin": float(said.probabilities[0] - said.probabilities[1]),
            "entropy": -float(sum(plogp)) / float(np.log(len(said.probabilities))),
            "saturation": said.cosine,
            "classifier": said.classifier,
        }
        asked = {name: value for name, value in features.items() if name in needs and value is not None}
        return Scored(said.token if choose else None, asked)

    def _embed(self, rows: SeqRows, source: tuple[int, ...]) -> None:
        for position, token in zip(rows.positions, rows.tokens, strict=True):
            before = self.slots[self._index(rows.blocks, position - 1)].history if position else ()
            slot = Slot((*before, token), source)
            slot.hidden[0] = self.model.embed([token])[0]
            self.slots[self._index(rows.blocks, position)] = slot

    def _run_layer(self, model: Model, layer: int, hidden: Array, rows: SeqRows) -> Array:
        """One layer for the rows of one sequence, over K and V gathered from its slots."""
        last = rows.positions[-1]
        keys, values = (np.full((last + 1, *self.model.kv_shape), np.nan) for _ in range(2))
        for position in range(last + 1):
            if position not in rows.positions:
                slot = self.slot(rows.blocks, position)
                assert layer in slot.layers, f"layer {layer} of position {position} is read and was not written"
                keys[position], values[position] = slot.layers[layer].key, slot.layers[layer].value
        hidden = model.run(layer, hidden, list(rows.positions), keys, values)
        for position in rows.positions:
            self.slot(rows.blocks, position).layers[layer] = Written(keys[position], values[position], None)
        return hidden

    def _count_writes(self, batch: Sequence[SeqRows]) -> None:
        """Count the blocks written to. Positions ascend, and no two rows of a batch write one slot."""
        written = [self._index(rows.blocks, position) for rows in batch for position in rows.positions]
        assert len(written) == len(set(written)), "two rows of a batch write the same slot"
        assert all(list(rows.positions) == sorted(rows.positions) for rows in batch), "positions do not ascend"
        self.writes.update({index // self._shape.block_size for index in written})

    def _layers(self, segments: range) -> range:
        return range(self._shape.layers_at[segments.start], self._shape.layers_at[segments.stop])

    def _index(self, blocks: Sequence[int], position: int) -> int:
        size = self._shape.block_size
        return blocks[position // size] * size + position % size
