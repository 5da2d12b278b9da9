"""Constraints on what an output may say, held at every position of a sequence, drafts included."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, Protocol

NOTHING = b""
"""The mask that allows no token."""


class Constraint(Protocol):
    """Which tokens may come next, after those that have been pushed. Each output has one of its own.

    Any method may raise: the output then ends with `error`.
    """

    def allowed(self) -> bytes:
        """A mask: token t may come next if bit t % 8 of byte t // 8 is set; those beyond its end may not."""

    def allowed_beside(self, others: Sequence[Any]) -> list[bytes | Exception]:
        """`allowed` of this one and of `others` of its type, which may be computed at the same time; none raises."""
        return [_outcome(one) for one in (self, *others)]

    def push(self, token: int) -> None:
        """Take a token that was allowed."""

    def rollback(self, count: int) -> None:
        """Take back the last `count` tokens."""

    def copy(self) -> Constraint:
        """Another one that has been told the same."""


def _outcome(constraint: Constraint) -> bytes | Exception:
    try:
        return constraint.allowed()
    except Exception as error:
        return error


class Guide:
    """A constraint together with the tokens of its sequence.

    A token is pushed when the mask behind it is asked for, so the last one of an output never is. Every exit and the
    top ask at the same position, and a check of drafts at all of theirs at once: masks are kept while they may be asked
    for. A constraint that has raised gives no more masks: nothing is allowed there, and `failure` is what it raised.
    Where that came of drafts which are cut back, a copy takes its place.
    """

    def __init__(self, constraint: Constraint, prompt_length: int) -> None:
        self._constraint, self._fresh = constraint, constraint.copy()
        self._start = self._length = prompt_length  # of the tokens that the constraint knows of, the prompt's included
        self._failed_at = 0  # how many tokens there were when it raised
        self._masks: dict[int, bytes] = {}
        self.failure: Exception | None = None

    def after(self, tokens: Sequence[int], position: int, accepted: int) -> bytes:
        """The mask of the token after `position`; nothing before the last of the `accepted` will be asked for again."""
        mask = self._masks.get(position)
        if mask is None:
            constraint = self._arrive(tokens, position)
            if constraint is None:
                return NOTHING
            mask = self._keep(_outcome(constraint), position, accepted)
        return mask

    def _arrive(self, tokens: Sequence[int], position: int) -> Constraint | None:
        """The constraint, which knows the tokens up to `position`; None where it gives no more masks."""
        if self.failure is None:
            try:
                self._roll_back(position + 1)
                while self._length <= position:
                    self._constraint.push(tokens[self._length])
                    self._length += 1
                return self._constraint
            except Exception as error:
                self.failure, self._failed_at = error, position + 1
        return None

    def _keep(self, outcome: bytes | Exception, position: int, accepted: int) -> bytes:
        if isinstance(outcome, Exception):
            self.failure, self._failed_at = outcome, position + 1
            return NOTHING
        self._masks = {p: m for p, m in self._masks.items() if p >= accepted - 1}
        self._masks[position] = outcome
        return outcome

    def cut_back(self, length: int) -> None:
        """The sequence has forgotten all tokens from `length` on."""
        self._masks = {p: m for p, m in self._masks.items() if p < length}
        if self.failure is None:
            try:
                self._roll_back(length)
            except Exception:
                self._begin_anew()
        elif length < self._failed_at:
            self._begin_anew()

    def _begin_anew(self) -> None:
        self._constraint, self._length, self.failure = self._fresh.copy(), self._start, None

    def _roll_back(self, length: int) -> None:
        if self._length > length:
            self._constraint.rollback(self._length - length)
            self._length = length


class Asked(NamedTuple):
    """A mask that `Guide.after` will be asked for."""

    guide: Guide
    tokens: Sequence[int]
    position: int
    accepted: int


def compute_together(asked: Iterable[Asked]) -> None:
    """Compute masks before they are asked for, those of constraints of one type at the same time. Guides differ."""
    by_type: dict[type, list[tuple[Asked, Constraint]]] = {}
    for one in asked:
        if one.position not in one.guide._masks:
            constraint = one.guide._arrive(one.tokens, one.position)
            if constraint is not None:
                by_type.setdefault(type(constraint), []).append((one, constraint))
    for members in by_type.values():
        first, *others = [constraint for _, constraint in members]
        for (one, _), outcome in zip(members, first.allowed_beside(others), strict=True):
            one.guide._keep(outcome, one.position, one.accepted)


def no_choice(guide: Guide | None) -> str:
    """Why nothing could be chosen for a sequence with this guide."""
    if guide is not None and guide.failure is not None:
        return f"what holds the output to its schema broke off: {guide.failure!r}"
    return "the model's numbers are not finite here, or every token is banned"
