"""The source of a request to an encoder-decoder model: encoded whole, once for all outputs of the request."""

from __future__ import annotations

from collections.abc import Sequence

from offramp.engine.blocks import BlockPool, Lease, Root
from offramp.types.executor import Source, SourceRows


class SharedSource:
    """The tokens of a source, and its blocks in the store of sources while any output of the request runs.

    `holders` are the numbers of the outputs that hold it: all that run, and no other. The last to let go gives the
    blocks back, and what was encoded is lost.
    """

    def __init__(self, tokens: Sequence[int]) -> None:
        self.tokens = tuple(tokens)
        self.lease: Lease | None = None
        self.encoded = False
        self.holders: set[int] = set()

    def blocks_needed(self, pool: BlockPool) -> int:
        """Blocks that one more holder takes."""
        return 0 if self.lease is not None else -(-len(self.tokens) // pool.block_size)

    def hold(self, number: int, pool: BlockPool) -> None:
        """An output starts to run; the first one takes the blocks. The caller has checked that there are as many."""
        if self.lease is None:
            self.lease = Lease(pool)
            self.lease.grow(len(self.tokens), 0)
        self.holders.add(number)

    def release(self, number: int) -> None:
        """An output runs no more; may be called twice."""
        self.holders.discard(number)
        if not self.holders and self.lease is not None:
            self.lease.close()
            self.lease, self.encoded = None, False

    @property
    def rows(self) -> SourceRows:
        """What is encoded."""
        assert self.lease is not None and not self.encoded
        return SourceRows(self.tokens, self.lease.blocks)

    @property
    def written(self) -> Source:
        """What cross-attention reads."""
        assert self.lease is not None and self.encoded, "a source is read that has not been encoded"
        return Source(len(self.tokens), self.lease.blocks)


def root_of(source: SharedSource | None) -> Root:
    """What blocks of K and V depend on beside a sequence's own tokens."""
    return () if source is None else source.tokens


def written(source: SharedSource | None) -> Source | None:
    """What the rows of a sequence read."""
    return None if source is None else source.written
