"""Teacher forcing: one exact full-depth pass over given tokens, and what any boundary says after any of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from offramp.engine.blocks import Lease
from offramp.engine.engine import Engine
from offramp.errors import CacheTooSmall
from offramp.types.executor import Feature, Scored, ScoreRow, SeqRows
from offramp.types.sampling import SamplingParams

GREEDY = SamplingParams()


class Forced(NamedTuple):
    """Tokens that are given, of which those from `start` on are asked about: one position before each is scored."""

    tokens: Sequence[int]
    start: int


class At(NamedTuple):
    """The hidden state of `position` in text number `text`, which chooses the token after it."""

    text: int
    position: int
    sampling: SamplingParams = GREEDY


class ForcedPass:
    """Some texts, every layer of which has run, while the block lasts. Nothing else may be running.

    What has run may be found by the prefix cache afterwards.

    Raises:
        CacheTooSmall: the paged store cannot hold the texts.
    """

    def __init__(self, engine: Engine, texts: Sequence[Sequence[int]]) -> None:
        assert not engine.has_work, "the engine is at work"
        self._engine, self._texts = engine, texts
        self._leases = [Lease(engine.pool) for _ in texts]
        self._reached = [0] * len(texts)  # tokens of each text that have run every layer

    def __enter__(self) -> ForcedPass:
        try:
            for _ in self.steps(self._engine.config.max_num_batched_tokens):
                pass
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def steps(self, cap: int) -> Iterator[None]:
        """The pass in steps, each of at most `cap` tokens in one segment. Between two of them it may be closed."""
        pool, executor = self._engine.pool, self._engine.executor
        needed = sum(-(-len(text) // pool.block_size) for text in self._texts)
        if needed > pool.num_blocks:
            room, size = pool.num_blocks * pool.block_size, sum(map(len, self._texts))
            raise CacheTooSmall(f"{size} tokens are to be held, the KV cache holds {room}", hint="raise `kv_tokens`")
        for batch in self._batches(cap):
            for segment in range(executor.shape.num_segments):
                executor.run_segment(segment, [rows for _, rows in batch])
                yield
            for text, rows in batch:
                self._reached[text] = rows.positions[-1] + 1

    def close(self) -> None:
        """Give the blocks back. May be called twice."""
        for text, lease, reached in zip(self._texts, self._leases, self._reached, strict=True):
            if lease.blocks:
                lease.register(text, reached)
            lease.close()

    def blocks(self, text: int) -> Sequence[int]:
        """The block table of text number `text`."""
        return self._leases[text].blocks

    def score(self, boundary: int, rows: Sequence[At], needs: frozenset[Feature] = frozenset()) -> list[Scored]:
        """What an exit (1..S) or the top (S+1) says at some positions; see `Executor.score`."""
        asked = [ScoreRow(at.position, self.blocks(at.text), at.sampling, 0) for at in rows]
        return self._engine.executor.score(boundary, asked, needs)

    def _batches(self, cap: int) -> Iterator[list[tuple[int, SeqRows]]]:
        """The tokens that no cached block holds, with their texts' numbers, at most `cap` in a batch, in order."""
        batch: list[tuple[int, SeqRows]] = []
        room = cap
        for number, (text, lease) in enumerate(zip(self._texts, self._leases, strict=True)):
            start = lease.adopt_prefix(text, len(text))
            lease.grow(len(text), len(text))
            while start < len(text):
                stop = min(len(text), start + room)
                batch.append((number, SeqRows(range(start, stop), text[start:stop], lease.blocks)))
                room -= stop - start
                start = stop
                if not room:
                    yield batch
                    batch, room = [], cap
        if batch:
            yield batch


def in_groups(texts: Sequence[Forced], engine: Engine) -> Iterator[tuple[int, Sequence[Forced]]]:
    """Neighbouring texts that fit a step of the engine and its store, with the number of the first; at least one."""
    pool = engine.pool
    blocks = [-(-len(text.tokens) // pool.block_size) for text in texts]
    cap = min(engine.config.max_num_batched_tokens // pool.block_size, pool.num_blocks)
    start = 0
    for number in range(1, len(texts)):
        if sum(blocks[start : number + 1]) > cap:
            yield start, texts[start:number]
            start = number
    if texts:
        yield start, texts[start:]


def top_choices(engine: Engine, texts: Sequence[Forced]) -> list[list[int | None]]:
    """What full depth would have chosen, greedily, for every token asked about."""
    chosen: list[list[int | None]] = []
    for _, group in in_groups(texts, engine):
        with ForcedPass(engine, [text.tokens for text in group]) as forced:
            rows = [At(i, p - 1) for i, text in enumerate(group) for p in range(text.start, len(text.tokens))]
            scores = iter(forced.score(engine.executor.shape.num_segments, rows))
        chosen += [[next(scores).token for _ in range(text.start, len(text.tokens))] for text in group]
    return chosen
