"""Teacher forcing: one exact full-depth pass over given tokens, and what any boundary says after any of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from offramp.engine.blocks import BlockPool, Lease
from offramp.engine.engine import Engine
from offramp.engine.sources import SharedSource, root_of, written
from offramp.errors import CacheTooSmall
from offramp.types.executor import Feature, ModelShape, Scored, ScoreRow, SeqRows
from offramp.types.output import Output
from offramp.types.sampling import SamplingParams

GREEDY = SamplingParams()


class Forced(NamedTuple):
    """Tokens that are given, of which those from `start` on are asked about: one position before each is scored.

    Where there is an encoder, they are the decoder's, over a `source`.
    """

    tokens: Sequence[int]
    start: int
    source: Sequence[int] = ()


def parts(texts: Sequence[Forced]) -> tuple[list[Sequence[int]], list[Sequence[int]]]:
    """Their tokens, and their sources."""
    return [text.tokens for text in texts], [text.source for text in texts]


def given(output: Output, shape: ModelShape) -> Forced:
    """An output as text whose generated tokens are asked about."""
    if shape.encoder is None:
        return Forced((*output.prompt_token_ids, *output.token_ids), len(output.prompt_token_ids))
    return Forced((shape.encoder.decoder_start_token_id, *output.token_ids), 1, output.prompt_token_ids)


class At(NamedTuple):
    """The hidden state of `position` in text number `text`, which chooses the token after it."""

    text: int
    position: int
    sampling: SamplingParams = GREEDY


class ForcedPass:
    """Some texts, every layer of which has run, while the block lasts. Nothing else may be running.

    Where there is an encoder, each has one of `sources`. What has run may be found by the prefix cache afterwards.

    Raises:
        CacheTooSmall: the paged store cannot hold the texts.
    """

    def __init__(
        self, engine: Engine, texts: Sequence[Sequence[int]], sources: Sequence[Sequence[int]] | None = None
    ) -> None:
        assert not engine.has_work, "the engine is at work"
        self._engine, self._texts = engine, texts
        self._sources = [SharedSource(source) if source else None for source in sources or [()] * len(texts)]
        self._leases = [Lease(engine.pool, root_of(source)) for source in self._sources]
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
        """The pass in steps, between which it may be closed: whole sources, then up to `cap` tokens in a segment."""
        pool, executor = self._engine.pool, self._engine.executor
        _check_room(pool, [len(text) for text in self._texts], "the KV cache", "kv_tokens")
        yield from self._encode(cap)
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
        for number, source in enumerate(self._sources):
            if source is not None:
                source.release(number)

    def blocks(self, text: int) -> Sequence[int]:
        """The block table of text number `text`."""
        return self._leases[text].blocks

    def score(self, boundary: int, rows: Sequence[At], needs: frozenset[Feature] = frozenset()) -> list[Scored]:
        """What an exit (1..S) or the top (S+1) says at some positions; see `Executor.score`."""
        asked = [ScoreRow(at.position, self.blocks(at.text), at.sampling, 0) for at in rows]
        return self._engine.executor.score(boundary, asked, needs)

    def score_exit(self, boundary: int, rows: Sequence[At], needs: frozenset[Feature]) -> list[Scored]:
        """What an exit says at some positions where the top chose every token before.

        A head that reads the past has to find there what the top leaves, and leaves something else itself: the top is
        asked before, and neighbours are not scored together.
        """
        shape = self._engine.executor.shape
        if not shape.reads_past:
            return self.score(boundary, rows, needs)
        found: dict[int, Scored] = {}
        for parity in (0, 1):
            some = [i for i, at in enumerate(rows) if at.position % 2 == parity]
            before = [rows[i]._replace(position=rows[i].position - 1) for i in some if rows[i].position]
            self.score(shape.num_segments, before)
            found.update(zip(some, self.score(boundary, [rows[i] for i in some], needs), strict=True))
        return [found[i] for i in range(len(rows))]

    def _encode(self, cap: int) -> Iterator[None]:
        """Encode all sources: each whole, and as many in a step as it takes to have `cap` tokens."""
        pool = self._engine.scheduler.sources
        if pool is None:
            return
        lengths = [len(root_of(source)) for source in self._sources]
        _check_room(pool, lengths, "the store of sources", "source_tokens")
        batch: list[SharedSource] = []
        for number, source in enumerate(self._sources):
            assert source is not None, "a text without a source"
            source.hold(number, pool)
            batch.append(source)
            last = number + 1 == len(self._sources)
            if last or sum(len(s.tokens) for s in batch) >= cap:
                self._engine.executor.encode([s.rows for s in batch])
                for encoded in batch:
                    encoded.encoded = True
                batch = []
                yield

    def _batches(self, cap: int) -> Iterator[list[tuple[int, SeqRows]]]:
        """The tokens that no cached block holds, with their texts' numbers, at most `cap` in a batch, in order."""
        batch: list[tuple[int, SeqRows]] = []
        room = cap
        for number, (text, lease) in enumerate(zip(self._texts, self._leases, strict=True)):
            source = written(self._sources[number])
            start = lease.adopt_prefix(text, len(text))
            lease.grow(len(text), len(text))
            while start < len(text):
                stop = min(len(text), start + room)
                batch.append((number, SeqRows(range(start, stop), text[start:stop], lease.blocks, source)))
                room -= stop - start
                start = stop
                if not room:
                    yield batch
                    batch, room = [], cap
        if batch:
            yield batch


def _check_room(pool: BlockPool, lengths: Sequence[int], where: str, option: str) -> None:
    if sum(-(-length // pool.block_size) for length in lengths) > pool.num_blocks:
        size, room = sum(lengths), pool.num_blocks * pool.block_size
        raise CacheTooSmall(f"{size} tokens are to be held, {where} holds {room}", hint=f"raise `{option}`")


def in_groups(texts: Sequence[Forced], engine: Engine) -> Iterator[tuple[int, Sequence[Forced]]]:
    """Neighbouring texts that fit a step of the engine and its stores, with the number of the first; at least one."""
    pool, sources = engine.pool, engine.scheduler.sources
    blocks = [-(-len(text.tokens) // pool.block_size) for text in texts]
    cap = min(engine.config.max_num_batched_tokens // pool.block_size, pool.num_blocks)
    source_blocks = [-(-len(text.source) // pool.block_size) for text in texts]
    source_cap = 0 if sources is None else sources.num_blocks
    start = 0
    for number in range(1, len(texts)):
        if sum(blocks[start : number + 1]) > cap or sum(source_blocks[start : number + 1]) > source_cap:
            yield start, texts[start:number]
            start = number
    if texts:
        yield start, texts[start:]


def top_choices(engine: Engine, texts: Sequence[Forced]) -> list[list[int | None]]:
    """What full depth would have chosen, greedily, for every token asked about."""
    chosen: list[list[int | None]] = []
    for _, group in in_groups(texts, engine):
        with ForcedPass(engine, *parts(group)) as forced:
            rows = [At(i, p - 1) for i, text in enumerate(group) for p in range(text.start, len(text.tokens))]
            scores = iter(forced.score(engine.executor.shape.num_segments, rows))
        chosen += [[next(scores).token for _ in range(text.start, len(text.tokens))] for text in group]
    return chosen
