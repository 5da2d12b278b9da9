"""Constraints: every token is one that its prefix allows, at exits and at the top, whatever is cut back in between."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from offramp.engine.guide import NOTHING, Asked, Constraint, Guide, compute_together
from offramp.engine.request import Request
from offramp.types.exits import ExitParams
from tests.engine.toy_engine import SPEC, Run, make_engine, request
from tests.executors.masks import packed, tokens_of

on_each_model = pytest.mark.usefixtures("each_model")
VERIFY = ExitParams(threshold={2: 0.3, 4: 0.3, 6: 0.3}, kv="verify", max_draft=5)
DIALS = [None, ExitParams(threshold=0.3), ExitParams(threshold=0.3, kv="recompute"), VERIFY]


def allowed_after(output: Sequence[int]) -> list[int]:
    """A quarter of the vocabulary, which depends on all of the output."""
    return random.Random(repr(list(output))).sample(range(SPEC.vocab_size), 12)


class Walk(Constraint):
    """Allows `allowed_after` what it was told, notes how it was used, and raises behind `breaks_after` tokens."""

    def __init__(self, breaks_after: int = 10**6) -> None:
        self.output: list[int] = []
        self.calls: list[str] = []
        self.breaks_after = breaks_after

    def allowed(self) -> bytes:
        self.calls.append("allowed")
        if len(self.output) >= self.breaks_after:
            raise RuntimeError("too long")
        return packed(allowed_after(self.output))

    def push(self, token: int) -> None:
        self.calls.append("push")
        assert token in allowed_after(self.output), "a token that was not allowed"
        self.output.append(token)

    def rollback(self, count: int) -> None:
        self.calls.append(f"rollback {count}")
        assert 0 < count <= len(self.output)
        del self.output[-count:]

    def copy(self) -> Walk:
        other = Walk(self.breaks_after)
        other.output = list(self.output)
        return other


class Fixed(Constraint):
    """Allows the given tokens one after the other, and then nothing."""

    def __init__(self, tokens: Sequence[int]) -> None:
        self.tokens, self.count = tokens, 0

    def allowed(self) -> bytes:
        return packed(self.tokens[self.count : self.count + 1])

    def push(self, token: int) -> None:
        self.count += 1

    def rollback(self, count: int) -> None:
        self.count -= count

    def copy(self) -> Fixed:
        other = Fixed(self.tokens)
        other.count = self.count
        return other


class Strict(Walk):
    """A `Walk` that raises behind everything but the beginning of `text`."""

    def __init__(self, text: Sequence[int]) -> None:
        super().__init__()
        self.text = text

    def allowed(self) -> bytes:
        if self.output != list(self.text[: len(self.output)]):
            raise RuntimeError("off the path")
        return super().allowed()

    def copy(self) -> Strict:
        other = Strict(self.text)
        other.output = list(self.output)
        return other


def constrained(make: Callable[[], Constraint] = Walk, exit: ExitParams | None = None, **sampling: Any) -> Request:
    asked = request(exit=exit, **{"seed": 3, **sampling})
    return replace(asked, constraints=[make() for _ in range(asked.sampling.n)])


def test_masks_are_computed_once_and_tokens_pushed_when_they_are_needed() -> None:
    walk, tokens = Walk(), [9, 9, 9]
    guide = Guide(walk, prompt_length=3)
    masks = []
    for position in range(2, 5):
        for _ in range(3):
            masks.append(guide.after(tokens, position, accepted=3))
        tokens.append(allowed_after(tokens[3:])[0])
    assert [tokens_of(m) for m in masks[::3]] == [set(allowed_after(tokens[3:n])) for n in (3, 4, 5)]
    assert masks[::3] == masks[1::3] == masks[2::3]
    assert walk.calls == ["allowed", "push", "allowed", "push", "allowed"]
    assert [guide.after(tokens, p, accepted=3) for p in (2, 3, 4)] == masks[::3]
    assert len(walk.calls) == 5


def test_what_is_cut_back_is_taken_back() -> None:
    walk, tokens = Walk(), [9]
    guide = Guide(walk, prompt_length=1)
    for position in range(5):
        guide.after(tokens, position, accepted=1)
        tokens.append(allowed_after(tokens[1:])[0])
    guide.cut_back(3)
    tokens[3:] = [allowed_after(tokens[1:3])[1]]
    assert walk.calls[-1] == "rollback 2" and walk.output == tokens[1:3]
    assert tokens_of(guide.after(tokens, 3, accepted=4)) == set(allowed_after(tokens[1:]))
    guide.cut_back(10)
    assert walk.output == tokens[1:] and guide.failure is None


def test_a_constraint_that_raised_is_left_alone_and_allows_nothing() -> None:
    walk = Walk(breaks_after=0)
    guide = Guide(walk, prompt_length=1)
    assert guide.after([9], 0, accepted=1) == NOTHING
    assert str(guide.failure) == "too long"
    guide.cut_back(1)
    assert guide.after([9], 0, accepted=1) == NOTHING and walk.calls == ["allowed"]


def test_what_raised_behind_tokens_that_are_cut_back_is_forgotten() -> None:
    tokens = [9]
    for _ in range(3):
        tokens.append(allowed_after(tokens[1:])[0])
    guide = Guide(Walk(breaks_after=3), prompt_length=1)
    good = [guide.after(tokens, position, accepted=1) for position in range(3)]
    assert guide.after(tokens, 3, accepted=1) == NOTHING and guide.failure is not None
    guide.cut_back(4)
    assert guide.failure is not None
    guide.cut_back(3)
    assert guide.failure is None and guide.after(tokens, 2, accepted=1) == good[2]


@pytest.mark.parametrize("max_draft", [1, 3, 8])
def test_a_constraint_that_raises_behind_rejected_drafts_ends_nothing(max_draft: int) -> None:
    off = Run(make_engine(), [constrained(max_tokens=24)]).tokens()
    exit = ExitParams(threshold=0.0, kv="verify", max_draft=max_draft)
    engine = make_engine()
    run = Run(engine, [constrained(lambda: Strict(off), exit, max_tokens=24)])
    assert run.tokens() == off and engine.sequences[0].finish_reason == "length"
    assert engine.sequences[0].drafts_accepted < engine.sequences[0].drafts_proposed


def test_masks_of_several_guides_are_those_that_each_would_give() -> None:
    walks = [Walk(), Walk(breaks_after=1), Walk(breaks_after=0), Walk()]
    texts = [[9, allowed_after([])[0]] for _ in walks]
    guides = [Guide(walk, prompt_length=1) for walk in walks]
    guides[3].after(texts[3], 1, accepted=2)
    compute_together(Asked(guide, text, 1, 2) for guide, text in zip(guides, texts, strict=True))
    known = [list(walk.calls) for walk in walks]
    masks = [guide.after(text, 1, accepted=2) for guide, text in zip(guides, texts, strict=True)]
    assert (
        tokens_of(masks[0]) == tokens_of(masks[3]) == set(allowed_after(texts[0][1:]))
        and masks[1] == masks[2] == NOTHING
    )
    assert [str(guide.failure) for guide in guides] == ["None", "too long", "too long", "None"]
    assert [walk.calls for walk in walks] == known == [["push", "allowed"]] * 4


@on_each_model
@pytest.mark.parametrize("exit", DIALS, ids=["off", "fill", "recompute", "verify"])
def test_every_token_is_one_that_its_prefix_allows(exit: ExitParams | None) -> None:
    engine = make_engine(num_blocks=9, max_num_seqs=3, max_num_batched_tokens=4)
    asked = [constrained(exit=exit, temperature=t, n=2, max_tokens=16) for t in (0.0, 0.8)]
    run = Run(engine, asked)
    for number in run.events:
        tokens = run.tokens(number)
        assert len(tokens) == 16
        assert all(token in allowed_after(tokens[:i]) for i, token in enumerate(tokens))
        guide = engine.sequences[number].guide
        assert guide is not None and guide.failure is None
    assert exit is None or {layer for n in run.events for layer in run.exit_layers(n)} > {8}
    assert any(plan.preempt for plan in run.plans)


@on_each_model
@pytest.mark.parametrize("temperature", [0.0, 0.8])
@pytest.mark.parametrize("max_draft", [1, 2, 5])
def test_verify_equals_exits_off_under_a_constraint_and_takes_back_rejected_drafts(
    temperature: float, max_draft: int
) -> None:
    walks: list[Walk] = []

    def make() -> Walk:
        walks.append(Walk())
        return walks[-1]

    off = Run(make_engine(), [constrained(temperature=temperature, max_tokens=24)]).tokens()
    for threshold in (0.0, 0.3):
        exit = ExitParams(threshold=threshold, kv="verify", max_draft=max_draft)
        engine = make_engine(block_size=2, num_blocks=16, max_num_seqs=3, max_num_batched_tokens=3)
        run = Run(engine, [constrained(make, exit, temperature=temperature, max_tokens=24) for _ in range(3)])
        assert [run.tokens(n) for n in range(3)] == [off] * 3
    assert any(call.startswith("rollback") for walk in walks for call in walk.calls)
    assert all(walk.output == off[: len(walk.output)] for walk in walks)


@pytest.mark.parametrize("exit", DIALS, ids=["off", "fill", "recompute", "verify"])
def test_a_constraint_that_fails_ends_its_own_output_only(exit: ExitParams | None) -> None:
    engine = make_engine()
    run = Run(engine, [constrained(exit=exit), constrained(lambda: Walk(4), exit), request(exit=exit)])
    assert [engine.sequences[n].finish_reason for n in range(3)] == ["length", "error", "length"]
    assert run.tokens(1) == run.tokens(0)[:4]
    assert run.tokens(0) == Run(make_engine(), [constrained(exit=exit)]).tokens()


@pytest.mark.parametrize("exit", DIALS, ids=["off", "fill", "recompute", "verify"])
def test_where_only_the_end_may_follow_the_output_stops(exit: ExitParams | None) -> None:
    engine = make_engine()
    run = Run(engine, [constrained(lambda: Fixed([5, 9, 0]), exit, ignore_eos=False)])
    assert run.tokens() == [5, 9, 0] and engine.sequences[0].finish_reason == "stop"


@pytest.mark.parametrize("exit", DIALS, ids=["off", "fill", "recompute", "verify"])
def test_where_nothing_may_follow_the_output_is_an_error(exit: ExitParams | None) -> None:
    engine = make_engine()
    run = Run(engine, [constrained(lambda: Fixed([5, 9]), exit)])
    assert run.tokens() == [5, 9] and engine.sequences[0].finish_reason == "error"


def test_a_token_that_must_come_leaves_at_the_first_exit() -> None:
    exit = ExitParams(threshold=1.0, kv="verify", max_draft=8)
    run = Run(make_engine(), [constrained(lambda: Fixed(range(1, 13)), exit)])
    assert run.tokens() == list(range(1, 13))
    assert run.exit_layers().count(2) > 8
