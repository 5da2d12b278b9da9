"""Paged KV blocks: reference counts, leases that close on every path, and a prefix cache of exact blocks."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Sequence

Root = tuple[int, ...]
"""What a sequence reads beside its own tokens: those of its source, none for a decoder-only model."""

BlockKey = tuple[int | Root, tuple[int, ...]]
"""Identity of a cached block: the identity of the block before it (the root at the start) and the block's own tokens.
So sequences of different sources share no block."""


class BlockPool:
    """Block numbers 0..num_blocks-1, shared by reference count.

    A block is free when nothing refers to it. A free block may still be *cached*: its content can be found by the
    exact tokens that lead up to it, until the block is needed for something else (least recently freed goes first).
    """

    def __init__(self, num_blocks: int, block_size: int, *, prefix_caching: bool = True) -> None:
        self.num_blocks = num_blocks
        self.block_size = block_size
        self.prefix_caching = prefix_caching
        self._references = [0] * num_blocks
        self._blank = list(range(num_blocks - 1, -1, -1))
        self._evictable: OrderedDict[int, None] = OrderedDict()
        self._cached: dict[BlockKey, tuple[int, int]] = {}
        self._key_of: dict[int, BlockKey] = {}
        self._last_identity = 0

    @property
    def num_free(self) -> int:
        """Blocks that can be taken now, cached ones included."""
        return len(self._blank) + len(self._evictable)

    def shared(self, block: int) -> bool:
        """Whether more than one lease holds the block."""
        return self._references[block] > 1

    def take(self) -> int:
        """A blank block with one reference. The caller has checked `num_free`."""
        if self._blank:
            block = self._blank.pop()
        else:
            block, _ = self._evictable.popitem(last=False)
            del self._cached[self._key_of.pop(block)]
        self._references[block] = 1
        return block

    def hold(self, block: int) -> None:
        """One more reference to a block."""
        if self._references[block] == 0:
            del self._evictable[block]
        self._references[block] += 1

    def release(self, block: int) -> None:
        """One reference fewer; the last one frees the block, cached content stays findable."""
        assert self._references[block] > 0, f"block {block} released twice"
        self._references[block] -= 1
        if self._references[block] == 0:
            if block in self._key_of:
                self._evictable[block] = None
            else:
                self._blank.append(block)

    def find(self, tokens: Sequence[int], limit: int, root: Root = ()) -> list[tuple[int, int]]:
        """The cached blocks that hold a prefix of `tokens`, within the first `limit` tokens: (block, identity)."""
        found: list[tuple[int, int]] = []
        if not self.prefix_caching:
            return found
        identity: int | Root = root
        size = self.block_size
        for start in range(0, limit - size + 1, size):
            hit = self._cached.get((identity, tuple(tokens[start : start + size])))
            if hit is None:
                break
            found.append(hit)
            identity = hit[1]
        return found

    def free_needed(self, tokens: Sequence[int], limit: int, root: Root = ()) -> int:
        """Free blocks that a new lease over `tokens` would use up, cached ones it would adopt included."""
        in_use = sum(self._references[block] > 0 for block, _ in self.find(tokens, limit, root))
        return -(-len(tokens) // self.block_size) - in_use

    def freed_by(self, leases: Sequence[Lease]) -> int:
        """Blocks that closing all of these leases would free."""
        held = Counter(block for lease in leases for block in lease.blocks)
        return sum(count == self._references[block] for block, count in held.items())

    def register(self, block: int, before: int | Root, tokens: tuple[int, ...]) -> int:
        """Make a full, exact block findable; returns its identity.

        Where the same content is cached already, that block stays the cached one and this one stays private; a block
        that is cached already keeps its identity.
        """
        key = self._key_of.get(block, (before, tokens))
        hit = self._cached.get(key)
        if hit is not None:
            return hit[1]
        self._last_identity += 1
        self._cached[key] = (block, self._last_identity)
        self._key_of[block] = key
        return self._last_identity

    def forget(self, block: int) -> None:
        """Its content is about to change: the block cannot be found any more."""
        key = self._key_of.pop(block, None)
        if key is not None:
            del self._cached[key]

    def cached_blocks(self) -> dict[int, BlockKey]:
        """Block number -> key of everything findable."""
        return dict(self._key_of)

    def check(self, leases: Sequence[Lease]) -> None:
        """Recount all references from the open leases.

        Raises:
            AssertionError: a block is leaked, shared wrongly, or free and in use at once.
        """
        counted = [0] * self.num_blocks
        for lease in leases:
            for block in lease.blocks:
                counted[block] += 1
        assert counted == self._references, f"references {self._references}, leases hold {counted}"
        free = [*self._blank, *self._evictable]
        assert sorted(free) == [b for b in range(self.num_blocks) if counted[b] == 0], "free list is wrong"
        assert set(self._evictable) <= set(self._key_of), "a blank block is listed as cached"
        assert {b: k for k, (b, _) in self._cached.items()} == self._key_of, "prefix index is wrong"


class Lease:
    """The block table of one sequence. `close` gives every block back and may be called twice."""

    def __init__(self, pool: BlockPool, root: Root = ()) -> None:
        self._pool, self._root = pool, root
        self.blocks: list[int] = []
        self.num_registered = 0
        self._identity: int | Root = root

    def blocks_needed(self, num_tokens: int, writes_from: int) -> int:
        """Blocks to take so that `num_tokens` are covered and those from `writes_from` on can be written."""
        more = max(0, -(-num_tokens // self._pool.block_size) - len(self.blocks))
        tail = writes_from // self._pool.block_size
        return more + (tail < len(self.blocks) and self._pool.shared(self.blocks[tail]))

    def grow(self, num_tokens: int, writes_from: int) -> list[tuple[int, int]]:
        """Cover `num_tokens`; returns the copy, (source, target), of a shared block about to be written.

        A block that a sibling filled, registered and left behind is this lease's alone again: it is forgotten instead.
        """
        copies = []
        pool, blocks = self._pool, self.blocks
        tail = writes_from // pool.block_size
        if tail < len(blocks):
            source = blocks[tail]
            if pool.shared(source):
                blocks[tail] = pool.take()
                pool.release(source)
                copies.append((source, blocks[tail]))
            else:
                pool.forget(source)
        while len(blocks) * pool.block_size < num_tokens:
            blocks.append(pool.take())
        return copies

    def adopt_prefix(self, tokens: Sequence[int], limit: int) -> int:
        """Start from cached blocks, at most `limit` tokens; returns how many tokens they hold."""
        for block, identity in self._pool.find(tokens, limit, self._root):
            self._pool.hold(block)
            self.blocks.append(block)
            self._identity = identity
            self.num_registered += 1
        return len(self.blocks) * self._pool.block_size

    def fork(self, num_tokens: int) -> Lease:
        """A lease that shares the blocks of the first `num_tokens` tokens, a partial last one included."""
        other = Lease(self._pool, self._root)
        other.blocks = self.blocks[: -(-num_tokens // self._pool.block_size)]
        for block in other.blocks:
            self._pool.hold(block)
        return other

    def register(self, tokens: Sequence[int], exact_length: int) -> None:
        """Make the full blocks within the first `exact_length` tokens findable."""
        size = self._pool.block_size
        if not self._pool.prefix_caching:
            return
        while (self.num_registered + 1) * size <= exact_length:
            start = self.num_registered * size
            self._identity = self._pool.register(
                self.blocks[self.num_registered], self._identity, tuple(tokens[start : start + size])
            )
            self.num_registered += 1

    def close(self) -> None:
        """Give every block back, last first, so that a prefix outlives what follows it."""
        while self.blocks:
            self._pool.release(self.blocks.pop())
        self.num_registered, self._identity = 0, self._root
