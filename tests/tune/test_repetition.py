"""Answers that go round in circles."""

from __future__ import annotations

import random

from offramp.tune.repetition import EVERY, LONGEST_LOOP, LOOPS, SURE, Watch, cut_loop, never_ends


def slow_cut(ids: tuple[int, ...]) -> tuple[int, ...]:
    """The same, by looking at every period and every count of repetitions."""
    for period in range(1, LONGEST_LOOP + 1):
        start = len(ids) - period
        while start > 0 and ids[start - 1] == ids[start - 1 + period]:
            start -= 1
        if len(ids) - start - period >= LOOPS * period:
            return ids[: start + LOOPS * period]
    return ids


def test_the_end_of_a_loop_is_cut_and_nothing_else() -> None:
    assert cut_loop((1, 2, 3)) == (1, 2, 3)
    assert cut_loop((9, 8, 7, 7, 7, 7, 7, 7)) == (9, 8, 7, 7, 7)
    assert cut_loop((5, *(1, 2, 3) * 9, 1)) == (5, *(1, 2, 3) * 3)
    pick = random.Random(0)
    for _ in range(300):
        ids = tuple(pick.randrange(3) for _ in range(pick.randrange(1, 20)))
        ids += tuple(pick.randrange(2) for _ in range(pick.randrange(1, 4))) * pick.randrange(1, 9)
        assert cut_loop(ids) == slow_cut(ids)


def test_the_watch_says_when_a_loop_will_not_end_and_what_is_cut_of_it_is_the_same() -> None:
    pick = random.Random(0)
    for period in (1, 2, 5, 17, LONGEST_LOOP):
        start = [pick.randrange(100, 200) for _ in range(pick.randrange(1, 40))]
        loop = list(range(period))
        ids = [*start, *loop * 400][:384]
        watch = Watch()
        said = next(i for i, token in enumerate(ids, start=1) if watch(token))
        assert said % EVERY == 0
        enough = len(start) + period + max(SURE, LOOPS * period)
        assert enough <= said < enough + EVERY
        assert cut_loop(tuple(ids[:said])) == cut_loop(tuple(ids)) == (*start, *loop * LOOPS)


def test_what_repeats_for_a_while_goes_on() -> None:
    watch = Watch()
    for token in [1, 2, 3] * 20 + list(range(300)):
        assert not watch(token)
    assert never_ends([7] * 80) and not never_ends([7] * 79) and not never_ends([7] * 64)
