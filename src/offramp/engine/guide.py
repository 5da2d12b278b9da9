"""Constraints on what an output may say, held at every position of a sequence, drafts included."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

NOTHING = b""
"""The mask that allows no token."""


class Constraint(Protocol):
    """Which tokens may come next, after those that have been pushed. Each output has one of its own.

    Any method may raise: the output then ends with `error`.
    """

    def allowed(self) -> bytes:
        """A mask: token t may come next if bit t % 8 of byte t // 8 is set; those beyond its end may not."""

    def push(self, token: int) -> None:
        """Take a token that was allowed."""

    def rollback(self, count: int) -> None:
        """Take back the last `count` tokens."""


class Guide:
    """A constraint together with the tokens of its sequence.

    A token is pushed when the mask behind it is asked for, so the last one of an output never is. Every exit and the
    top ask at the same position, and a check of drafts at all of theirs at once: masks are kept while they may be asked
    for. A constraint that has raised gives no more masks: nothing is allowed there. `failure` is what it raised.
    """

    def __init__(self, constraint: Constraint, prompt_length: int) -> None:
        self._constraint = constraint
        self._length = prompt_length  # of the tokens that the constraint knows of, the prompt's included
        self._masks: dict[int, bytes] = {}
        self.failure: Exception | None = None

    def after(self, tokens: Sequence[int], position: int, accepted: int) -> bytes:
        """The mask of the token after `position`; nothing before the last of the `accepted` will be asked for again."""
        mask = self._masks.get(position)
        if mask is None:
            if self.failure is not None:
                return NOTHING
            try:
                mask = self._compute(tokens, position)
            except Exception as error:
                self.failure = error
                return NOTHING
            self._masks = {p: m for p, m in self._masks.items() if p >= accepted - 1}
            self._masks[position] = mask
        return mask

    def _compute(self, tokens: Sequence[int], position: int) -> bytes:
        self._roll_back(position + 1)
        while self._length <= position:
            self._constraint.push(tokens[self._length])
            self._length += 1
        return self._constraint.allowed()

    def cut_back(self, length: int) -> None:
        """The sequence has forgotten all tokens from `length` on."""
        self._masks = {p: m for p, m in self._masks.items() if p < length}
        if self.failure is None:
            try:
                self._roll_back(length)
            except Exception as error:
                self.failure = error

    def _roll_back(self, length: int) -> None:
        if self._length > length:
            self._constraint.rollback(self._length - length)
            self._length = length


def no_choice(guide: Guide | None) -> str:
    """Why nothing could be chosen for a sequence with this guide."""
    if guide is not None and guide.failure is not None:
        return f"what holds the output to its schema broke off: {guide.failure!r}"
    return "the model's numbers are not finite here, or every token is banned"
