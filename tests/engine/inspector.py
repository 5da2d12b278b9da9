"""What must hold of an engine between two steps, worked out from scratch: slow, obvious, whatever led up to it."""

from __future__ import annotations

from functools import cache

import numpy as np

from offramp.engine.engine import Engine
from offramp.engine.sequence import Sequence
from offramp.engine.sources import root_of
from tests.engine.paged import PagedExecutor
from tests.oracle.model import Array, Model


class Inspector:
    """Looks at every slot, block and frontier after every step; but not again at what was not written to since."""

    def __init__(self, executor: PagedExecutor) -> None:
        self.executor = executor
        self._exact = cache(lambda source, history: exact_kv(executor.model.reading(source), history))
        self._seen: dict[tuple[str, int], object] = {}

    def __call__(self, engine: Engine) -> None:
        for sequence in engine.scheduler.running:
            self.check_source(sequence)
            assert sequence.lease is not None
            writes = [(block, self.executor.writes[block]) for block in sequence.lease.blocks]
            if self._is_news("sequence", sequence.number, (list(sequence.tokens), list(sequence.frontier), writes)):
                self.check_slots(sequence)
        self.check_blocks(engine)
        for block, (_, tokens) in engine.pool.cached_blocks().items():
            if self._is_news("block", block, (tokens, self.executor.writes[block])):
                self.check_cached(block, tokens)

    def _is_news(self, kind: str, number: int, state: object) -> bool:
        before = self._seen.get((kind, number))
        self._seen[kind, number] = state
        return before != state

    def check_slots(self, sequence: Sequence) -> None:
        """Below each frontier lies the right token, run or passed as its mark says."""
        assert sequence.lease is not None
        layers_at = self.executor.shape.layers_at
        for position in range(sequence.frontier[0]):
            slot = self.executor.slot(sequence.lease.blocks, position)
            assert slot.history == tuple(sequence.tokens[: position + 1]), f"position {position} holds another history"
            assert slot.source == root_of(sequence.source), f"position {position} was read with another source"
            left_at = self.boundary_left(sequence, position)
            for segment, frontier in enumerate(sequence.frontier):
                if position < frontier:
                    expected = left_at if left_at is not None and segment >= left_at else None
                    written = [slot.layers[layer].passed_from for layer in range(*layers_at[segment : segment + 2])]
                    assert set(written) == {expected}, f"position {position} in segment {segment}: {written}"

    def check_source(self, sequence: Sequence) -> None:
        """An encoded source lies in its blocks, for as long as anybody who reads it runs."""
        source = sequence.source
        if source is not None and source.encoded:
            assert self.executor.source(source.written) == source.tokens, "another source lies there"

    def boundary_left(self, sequence: Sequence, position: int) -> int | None:
        """The exit at which a `fill` sequence's token left; None for the prompt, the live token and the top."""
        output = position - sequence.prompt_length + 1
        if sequence.exit is None or sequence.exit.kv != "fill" or not 0 <= output < len(sequence.marks):
            return None
        mark = sequence.marks[output]
        return mark if mark < self.executor.shape.num_segments else None

    def check_blocks(self, engine: Engine) -> None:
        """Blocks not in anybody's table are free, and nobody writes into a block that others hold."""
        tables = [s.lease.blocks for s in engine.scheduler.running if s.lease is not None]
        held = {block for table in tables for block in table}
        assert engine.pool.num_free == engine.pool.num_blocks - len(held), "the free count is wrong"
        assert all(len(set(table)) == len(table) for table in tables), "a table names a block twice"

    def check_cached(self, block: int, tokens: tuple[int, ...]) -> None:
        """A block that can be found by its tokens is, bit for bit, what one full pass over them writes."""
        size = self.executor.shape.block_size
        slots = [self.executor.slots[block * size + offset] for offset in range(size)]
        whole = slots[-1].history
        assert whole[-size:] == tokens, f"block {block} is listed under tokens that it does not hold"
        keys, values = self._exact(slots[-1].source, whole)
        for position, slot in enumerate(slots, start=len(whole) - size):
            assert slot.history == whole[: position + 1], f"block {block} mixes histories"
            assert slot.source == slots[-1].source, f"block {block} mixes sources"
            for layer in range(self.executor.model.num_layers):
                same = np.array_equal(slot.layers[layer].key, keys[layer, position])
                same &= np.array_equal(slot.layers[layer].value, values[layer, position])
                assert same, f"cached block {block} holds inexact KV of position {position} in layer {layer}"


def exact_kv(model: Model, tokens: tuple[int, ...]) -> tuple[Array, Array]:
    """K and V [layers, positions, *kv_shape] of one full pass."""
    positions = list(range(len(tokens)))
    keys, values = (np.full((model.num_layers, len(tokens), *model.kv_shape), np.nan) for _ in range(2))
    hidden = model.embed(list(tokens))
    for layer in range(model.num_layers):
        hidden = model.run(layer, hidden, positions, keys[layer], values[layer])
    return keys, values
