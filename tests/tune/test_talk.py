"""What is said in a conversation, token by token, with a model that says what it is told to."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from offramp.errors import TokenizerError
from offramp.tokenizer import Tokenizer, tokenizer_from_folder
from offramp.tune.repetition import cut_loop
from offramp.tune.samples import Sample
from offramp.tune.settings import DataSettings
from offramp.tune.talk import GOES_ON, SHORTEST, Line, Rules
from tests.models.toys import VOCAB
from tests.tune.toys import END, TEMPLATE

SETTINGS = DataSettings(max_user_tokens=8, max_answer_tokens=40)
NOTHING = -1
"""Chosen where the template speaks: nobody is to look at it."""

NO_TEXT = "what is"
"""Words behind which comes a byte that is no character."""


class Coin:
    """Says again and again whether there is another turn."""

    def __init__(self, goes_on: bool) -> None:
        self._drawn = GOES_ON / 2 if goes_on else (1 + GOES_ON) / 2

    def random(self) -> float:
        return self._drawn


@pytest.fixture(scope="module")
def tokenizer(toy: tuple[Path, Any]) -> Tokenizer:
    return tokenizer_from_folder(toy[0])


@pytest.fixture
def rules(tokenizer: Tokenizer) -> Rules:
    return Rules.of(tokenizer, (END,), SETTINGS)


def new_line(rules: Rules, goes_on: bool = False) -> Line:
    return Line(rules, cast(np.random.Generator, Coin(goes_on)))


def ids(rules: Rules, text: str) -> list[int]:
    return rules.tokenizer.encode(text, add_special_tokens=False)


def template(line: Line, tokens: Sequence[int]) -> None:
    """The template says these, whatever is chosen."""
    for token in tokens:
        age = line.last[1]
        assert line.take(NOTHING) is None
        assert line.last[:2] == (token, 1 if age == line.last[1] else age + 1)


def chosen(line: Line, tokens: Sequence[int]) -> list[Sample]:
    """These are chosen; gives the answers that come of it."""
    return [sample for token in tokens if (sample := line.take(token)) is not None]


def ask(line: Line, rules: Rules, text: str = "hello") -> list[int]:
    """A turn of the user from the first token to the template's last behind it; gives what was said."""
    turn = ids(rules, text)
    template(line, rules.first)
    assert line.user_speaks and chosen(line, [*turn, END]) == []
    assert line.last[:2] == (rules.behind_user[0], len(rules.first) + len(turn) + 1)
    template(line, rules.behind_user[1:])
    assert not line.user_speaks
    return [*rules.first, *turn, *rules.behind_user]


def begun_anew(line: Line, rules: Rules) -> bool:
    """Whether the next token is the first of a conversation."""
    line.take(NOTHING)
    return line.last[:2] == (rules.first[0], 1)


def test_rules_are_what_the_template_puts_around_words(rules: Rules) -> None:
    parts = (rules.first, rules.behind_user, rules.behind_answer)
    assert [rules.tokenizer.decode(part) for part in parts] == ["[user]", "|[assistant]", "|[user]"]
    assert rules.ends == {END} and rules.seen == set()


def test_an_answer_comes_with_all_that_was_said_before_it(rules: Rules) -> None:
    line = new_line(rules, goes_on=True)
    first = ask(line, rules)
    answer = [*ids(rules, "so it is"), END]
    assert chosen(line, answer) == [Sample((*first, *answer), len(first))]
    template(line, rules.behind_answer)
    assert line.user_speaks
    second = ids(rules, "hello")  # said before, but not behind that answer
    assert chosen(line, [*second, END]) == []
    template(line, rules.behind_user[1:])
    prompt = [*first, *answer, *rules.behind_answer, *second, *rules.behind_user]
    assert line.last[:2] == (prompt[-1], len(prompt))
    assert chosen(line, answer) == [Sample((*prompt, *answer), len(prompt))]


def test_without_another_turn_a_conversation_is_begun_anew(rules: Rules) -> None:
    line = new_line(rules)
    ask(line, rules)
    assert len(chosen(line, [*ids(rules, "so it is"), END])) == 1
    assert line.last[:2] == (END, 1)
    assert begun_anew(line, rules)


@pytest.mark.parametrize("behind", ["", "|[user]"])
def test_an_end_that_the_template_has_too_is_said_once(rules: Rules, behind: str) -> None:
    rules = replace(rules, behind_answer=[END, *ids(rules, behind)])
    line = new_line(rules, goes_on=True)
    prompt, answer = ask(line, rules), [*ids(rules, "so it is"), END]
    assert chosen(line, answer) == [Sample((*prompt, *answer), len(prompt))]
    template(line, rules.behind_answer[1:])
    assert line.user_speaks
    assert line.last[:2] == ((ids(rules, behind) or [END])[-1], len(prompt) + len(answer) + len(ids(rules, behind)))
    again = ids(rules, "again")
    assert chosen(line, [*again, END]) == []
    template(line, rules.behind_user[1:])
    prompt += [*answer, *rules.behind_answer[1:], *again, *rules.behind_user]
    assert chosen(line, answer) == [Sample((*prompt, *answer), len(prompt))]


def test_an_answer_without_an_end_is_cut_and_nothing_follows_it(rules: Rules) -> None:
    line = new_line(rules, goes_on=True)
    prompt = ask(line, rules)
    answer = [5 + i for i in range(SETTINGS.max_answer_tokens)]
    assert chosen(line, answer[:-1]) == []
    assert line.take(answer[-1]) == Sample((*prompt, *answer), len(prompt))
    assert begun_anew(line, rules)


def test_an_answer_that_ends_at_once_is_none(rules: Rules) -> None:
    line = new_line(rules)
    ask(line, rules)
    assert chosen(line, [END]) == []
    assert begun_anew(line, rules)


def test_of_a_loop_the_sample_has_less_than_was_said(rules: Rules) -> None:
    line = new_line(rules, goes_on=True)
    prompt = ask(line, rules)
    answer = (*ids(rules, "so"), *ids(rules, "xyz") * 9, END)
    assert cut_loop(answer) == answer  # it ends after all
    assert chosen(line, answer) == [Sample((*prompt, *answer), len(prompt))]
    line = new_line(rules)
    prompt = ask(line, rules, "other")
    loop = (*ids(rules, "so"), *ids(rules, "xy") * 19)
    assert len(loop) == SETTINGS.max_answer_tokens
    assert chosen(line, loop) == [Sample((*prompt, *ids(rules, "soxyxyxy")), len(prompt))]


@pytest.mark.parametrize("text", ["abc", "", "     ", "HELLO", "hello  ", NO_TEXT])
def test_turns_of_no_use_are_begun_anew(rules: Rules, text: str) -> None:
    """Too short, empty, no words, said before, no text."""
    ask(new_line(rules), rules)
    turn = ids(rules, text)
    if text == NO_TEXT:
        turn += [i for i in range(len(VOCAB)) if rules.tokenizer.token_bytes(i) == b"\xff"]
    line = new_line(rules)
    template(line, rules.first)
    assert chosen(line, [*turn, END]) == []
    assert line.last[:2] == (rules.first[0], 1)
    template(line, rules.first[1:])
    assert line.user_speaks
    assert chosen(line, [*ids(rules, "good one"), END]) == []
    assert line.last[0] == rules.behind_user[0]


def test_a_turn_may_have_just_so_many_tokens(rules: Rules) -> None:
    turn = ids(rules, "12345678")
    assert len(turn) == SETTINGS.max_user_tokens
    assert ask(new_line(rules), rules, "12345678")
    line = new_line(rules)
    template(line, rules.first)
    assert chosen(line, [*turn, turn[0]]) == []
    assert line.last[:2] == (rules.first[0], 1)


@pytest.mark.parametrize(("tokens", "kept"), [(SHORTEST - 1, False), (SHORTEST, True)])
def test_the_end_of_a_line_leaves_answers_that_are_long_enough(rules: Rules, tokens: int, kept: bool) -> None:
    line = new_line(rules)
    assert line.cut() is None
    prompt = ask(line, rules)
    answer = [5 + i for i in range(tokens)]
    assert chosen(line, answer) == []
    assert line.cut() == (Sample((*prompt, *answer), len(prompt)) if kept else None)


def test_what_is_no_answer_is_not_kept_at_the_end_of_a_line(tokenizer: Tokenizer) -> None:
    rules = Rules.of(tokenizer, (END,), replace(SETTINGS, max_user_tokens=100))
    line = new_line(rules)
    template(line, rules.first)
    chosen(line, [5 + i for i in range(2 * SHORTEST)])
    assert line.user_speaks and line.cut() is None
    chosen(line, [END])
    assert line.last[0] == rules.behind_user[0] and line.cut() is None
    template(line, rules.behind_user[1:-1])
    assert line.cut() is None


def test_turns_of_samples_that_are_there_were_said_before(rules: Rules) -> None:
    line = new_line(rules, goes_on=True)
    samples = [Sample((*ask(line, rules), *(answer := [*ids(rules, "so"), END])), line.last[1])]
    chosen(line, answer)
    template(line, rules.behind_answer)
    chosen(line, [*ids(rules, "go on"), END])
    template(line, rules.behind_user[1:])
    samples += chosen(line, answer)
    again = Rules.of(rules.tokenizer, (END,), SETTINGS, samples)
    assert again.seen == rules.seen
    line = new_line(again)
    template(line, again.first)
    chosen(line, [*ids(again, "hello"), END])
    assert line.last[:2] == (again.first[0], 1)


def with_template(toy: Path, folder: Path, text: str | None) -> Tokenizer:
    shutil.copy(toy / "tokenizer.json", folder)
    settings = {"eos_token": "<|end|>"} | ({} if text is None else {"chat_template": text})
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return tokenizer_from_folder(folder)


BETWEEN = "the chat template does not show what stands between turns"
LAST_ALONE = "[{{ messages[-1].role }}]{{ messages[-1].content }}|"
NUMBERED = "{% for m in messages %}[{{ loop.index }}]{{ m.content }}|{% endfor %}"
NONE_AT_ALL = "hello"
NOTHING_BETWEEN = "say: {% for m in messages %}{{ m.content }}{% endfor %}"
NO_PLACE = TEMPLATE.replace("[{{ m.role }}]", "{% if not loop.first %}[{{ m.role }}]{% endif %}")


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        (None, "the model has no chat template", "send a plain prompt, or add `chat_template.jinja` to the model's"),
        (LAST_ALONE, BETWEEN, "give a file as `--data`"),
        (NUMBERED, BETWEEN, "give a file as `--data`"),
        (NONE_AT_ALL, BETWEEN, "give a file as `--data`"),
        (NOTHING_BETWEEN, BETWEEN, "give a file as `--data`"),
        (
            NO_PLACE,
            "the chat template gives the model no place from which to invent a user's turn",
            "give a file as `--data`",
        ),
    ],
)
def test_templates_from_which_no_conversation_can_be_made(
    toy: tuple[Path, Any], tmp_path: Path, text: str | None, message: str, hint: str
) -> None:
    with pytest.raises(TokenizerError) as error:
        Rules.of(with_template(toy[0], tmp_path, text), (END,), SETTINGS)
    assert error.value.message == message
    assert error.value.hint is not None and error.value.hint.startswith(hint)
