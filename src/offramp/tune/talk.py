"""What is said in a conversation of a model with itself, token by token.

The chat template says what stands between turns. A turn of the user is the model's own, and so is the answer; at times
the model has another turn. A conversation that comes to nothing is begun anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from offramp.errors import TokenizerError
from offramp.tokenizer import Tokenizer
from offramp.tune.repetition import cut_loop, never_ends
from offramp.tune.samples import Sample
from offramp.tune.settings import DataSettings
from offramp.tune.synthesis import MARK, is_turn, turn_key, user_prefix

GOES_ON = 0.3
"""How often there is another turn."""

SHORTEST = 32
"""Answers that the end of a line cuts off are kept from so many tokens on."""


@dataclass(frozen=True)
class Rules:
    """What all conversations have in common.

    `ends`: the tokens that end a turn or an answer. `first`, `behind_user`, `behind_answer`: what the chat template
    puts before the first turn, behind a turn and behind an answer. `seen`: turns that were said.
    """

    tokenizer: Tokenizer
    settings: DataSettings
    ends: frozenset[int]
    first: Sequence[int]
    behind_user: Sequence[int]
    behind_answer: Sequence[int]
    seen: set[str] = field(default_factory=set)

    @classmethod
    def of(
        cls, tokenizer: Tokenizer, ends: Sequence[int], settings: DataSettings, samples: Sequence[Sample] = ()
    ) -> Rules:
        """Those of a tokenizer's chat template; `samples` are there already.

        Raises:
            TokenizerError: there is no chat template, or it does not show what is said.
        """
        said = [{"role": role, "content": MARK} for role in ("user", "assistant", "user")]
        parts = tokenizer.apply_chat_template(said).split(MARK)
        if len(parts) != 4 or parts[1] != parts[3] or not all(parts[1:]):
            raise TokenizerError(
                "the chat template does not show what stands between turns", hint="give a file as `--data`"
            )
        behind = [tokenizer.encode(part, add_special_tokens=False) for part in parts[1:3]]
        rules = cls(tokenizer, settings, frozenset(ends), user_prefix(tokenizer), behind[0], behind[1])
        rules.seen.update(rules.key_of(sample) for sample in samples)
        return rules

    def key_of(self, sample: Sample) -> str:
        """What `seen` has of the turn that a sample answers."""
        return turn_key(self.tokenizer, sample.token_ids[: sample.prompt_tokens - len(self.behind_user)])


class Line:
    """One conversation after another.

    Attributes:
        user_speaks: whether the next token is the user's, unless the template says it.
    """

    def __init__(self, rules: Rules, pick: np.random.Generator) -> None:
        self._rules, self._pick = rules, pick
        self._ids: list[int] = []
        self._given: list[int] = []
        self._said, self._begin, self.user_speaks = 0, 0, False
        self._begin_anew()

    @property
    def last(self) -> tuple[int, int, bool]:
        """The token said last, how many the conversation has with it, and whether the user speaks next."""
        return self._said, len(self._ids) or 1, self.user_speaks

    def take(self, chosen: int) -> Sample | None:
        """Say one more token: the template's if it has one to say, else `chosen`. Gives the answer that this ends."""
        if not self._given:
            if not self.user_speaks:
                return self._answer(chosen)
            self._speak(chosen)
        if self._given:
            self._say(self._given.pop(0))
            if not self._given:
                self._change_turns()
        return None

    def cut(self) -> Sample | None:
        """The answer that is being given, if it is of use as it is."""
        answering = not self._given and not self.user_speaks
        return self._sample() if answering and len(self._ids) - self._begin >= SHORTEST else None

    def _speak(self, chosen: int) -> None:
        """Go on with the user's turn; or have it end, well or not."""
        rules, turn = self._rules, self._ids[self._begin :]
        if chosen in rules.ends:
            key = turn_key(rules.tokenizer, self._ids)
            if is_turn(rules.tokenizer.decode(turn), len(turn)) and key not in rules.seen:
                rules.seen.add(key)
                self._given = list(rules.behind_user)
            else:
                self._begin_anew()
        elif len(turn) >= rules.settings.max_user_tokens:
            self._begin_anew()
        else:
            self._say(chosen)

    def _answer(self, chosen: int) -> Sample | None:
        rules = self._rules
        self._say(chosen)
        ended, count = chosen in rules.ends, len(self._ids) - self._begin
        if not ended and count < rules.settings.max_answer_tokens and not never_ends(self._ids, self._begin):
            return None
        sample = self._sample() if count > 1 else None
        if ended and self._pick.random() < GOES_ON:
            behind = list(rules.behind_answer)
            self._given = behind[1:] if behind[0] == chosen else behind
            if not self._given:
                self._change_turns()
        else:
            self._begin_anew()
        return sample

    def _sample(self) -> Sample:
        return Sample((*self._ids[: self._begin], *cut_loop(tuple(self._ids[self._begin :]))), self._begin)

    def _change_turns(self) -> None:
        self._begin, self.user_speaks = len(self._ids), not self.user_speaks

    def _say(self, token: int) -> None:
        self._said = token
        self._ids.append(token)

    def _begin_anew(self) -> None:
        self._ids, self._given = [], list(self._rules.first)
        self._begin, self.user_speaks = 0, False
