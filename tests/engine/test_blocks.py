"""Blocks: reference counts, leases, and a prefix cache that finds exact content only."""

from __future__ import annotations

import pytest

from offramp.engine.blocks import BlockPool, Lease

TOKENS = [1, 2, 3, 4, 5, 6, 7, 8, 9]


def filled_lease(pool: BlockPool, tokens: list[int]) -> Lease:
    lease = Lease(pool)
    hit = lease.adopt_prefix(tokens, len(tokens) - 1)
    lease.grow(len(tokens), hit)
    lease.register(tokens, len(tokens))
    return lease


def test_closing_a_lease_twice_gives_its_blocks_back_once() -> None:
    pool = BlockPool(4, 2)
    lease = filled_lease(pool, TOKENS[:5])
    assert pool.num_free == 1
    lease.close()
    lease.close()
    assert pool.num_free == 4
    pool.check([])


def test_a_prefix_is_shared_while_held_and_found_again_after_release() -> None:
    pool = BlockPool(8, 2)
    first = filled_lease(pool, TOKENS[:6])
    second = filled_lease(pool, [*TOKENS[:4], 40, 41])
    assert second.blocks[:2] == first.blocks[:2] and second.blocks[2] != first.blocks[2]
    pool.check([first, second])
    first.close()
    second.close()
    third = Lease(pool)
    assert third.adopt_prefix([*TOKENS[:4], 50, 51, 52], 6) == 4
    pool.check([third])


def test_a_hit_stays_within_its_limit() -> None:
    pool = BlockPool(8, 2)
    filled_lease(pool, TOKENS[:6]).close()
    assert Lease(pool).adopt_prefix(TOKENS[:6], 5) == 4


def test_equal_blocks_behind_different_prefixes_are_not_confused() -> None:
    pool = BlockPool(8, 2)
    filled_lease(pool, [1, 2, 7, 8]).close()
    assert Lease(pool).adopt_prefix([3, 4, 7, 8, 9], 4) == 0


def test_only_full_blocks_below_the_exact_length_are_registered() -> None:
    pool = BlockPool(8, 2)
    lease = Lease(pool)
    lease.grow(6, 0)
    lease.register(TOKENS[:6], 3)
    assert list(pool.cached_blocks()) == lease.blocks[:1]


def test_without_prefix_caching_nothing_is_found() -> None:
    pool = BlockPool(8, 2, prefix_caching=False)
    filled_lease(pool, TOKENS[:6]).close()
    assert Lease(pool).adopt_prefix(TOKENS[:6], 5) == 0


def test_the_least_recently_freed_cached_block_is_evicted_first() -> None:
    pool = BlockPool(3, 2)
    filled_lease(pool, [1, 2]).close()
    filled_lease(pool, [3, 4]).close()
    lease = Lease(pool)
    lease.grow(4, 0)  # the blank block, then the block of [1, 2]
    assert pool.find([1, 2, 0], 2) == []
    assert len(pool.find([3, 4, 0], 2)) == 1
    pool.check([lease])


def test_a_fork_shares_the_partial_block_until_somebody_writes() -> None:
    pool = BlockPool(8, 4)
    parent = filled_lease(pool, TOKENS[:6])
    child = parent.fork(6)
    assert child.blocks == parent.blocks
    assert child.blocks_needed(7, 6) == 1
    copies = child.grow(7, 6)
    assert copies == [(parent.blocks[1], child.blocks[1])] and child.blocks[0] == parent.blocks[0]
    assert parent.grow(7, 6) == []
    pool.check([parent, child])


def test_a_partial_block_that_a_sibling_filled_and_left_is_forgotten_before_it_is_written() -> None:
    pool = BlockPool(8, 4)
    parent = filled_lease(pool, TOKENS[:6])
    child = parent.fork(6)
    parent.grow(8, 8)
    parent.register(TOKENS[:8], 8)
    parent.close()
    assert child.grow(7, 6) == []
    assert pool.find([*TOKENS[:8], 0], 8) == pool.find([*TOKENS[:4], 0], 4) != []
    pool.check([child])


def test_blocks_freed_together_count_shared_ones_once_all_holders_go() -> None:
    pool = BlockPool(8, 4)
    parent = filled_lease(pool, TOKENS[:6])
    child = parent.fork(6)
    assert pool.freed_by([child]) == 0
    assert pool.freed_by([parent, child]) == 2


def test_a_leak_is_found() -> None:
    pool = BlockPool(4, 2)
    filled_lease(pool, TOKENS[:4])
    with pytest.raises(AssertionError, match="references"):
        pool.check([])
