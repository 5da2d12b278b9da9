"""The words that training's values are mostly made of: many, of many shapes, and none that a mail has anyway."""

from __future__ import annotations

import re
from random import Random

import pytest

from examples.order_mail import pools
from examples.order_mail.inventing import (
    DATES,
    INVENTED,
    PROPER,
    REAL,
    TAKEN,
    Invent,
    draw,
    invent_brand,
    invent_city,
    invent_name,
    invent_noun,
    invent_street,
    invent_word,
    is_taken,
)
from examples.order_mail.pools import part

COUNT = 3000

ALL = [
    (invent_name, pools.LAST_NAMES),
    (invent_brand, pools.COMPANY_WORDS),
    (invent_city, pools.CITIES),
    (invent_street, pools.STREETS_BEFORE_NUMBERS),
    (invent_word, pools.MATERIALS),
    (invent_noun, pools.NOUNS),
]


def made(invent: Invent) -> list[str]:
    random = Random(0)
    return [invent(random) for _ in range(COUNT)]


@pytest.mark.parametrize(("invent", "pool"), ALL)
def test_they_are_many_of_letters_only_and_none_that_mails_have_anyway(invent: Invent, pool: list[str]) -> None:
    some = made(invent)
    assert len(set(some)) > 0.8 * COUNT
    for value in some:
        assert all(word.isalpha() and 3 <= len(word) <= 20 for word in value.split())
        assert value.lower() not in TAKEN and not value.lower().endswith(DATES)
    assert not {value.lower() for value in some} & {value.lower() for value in pool}


@pytest.mark.parametrize(("invent", "pool"), ALL)
def test_they_are_written_as_the_pool_is(invent: Invent, pool: list[str]) -> None:
    for value in made(invent):
        written = [str.capitalize if pool[0].istitle() else str.lower, *[str.capitalize] * value.count(" ")]
        assert value == " ".join(write(word) for write, word in zip(written, value.split(), strict=True))
        assert value.isascii() or invent in (invent_name, invent_city, invent_street)


def test_a_noun_takes_a_plain_s() -> None:
    for noun in made(invent_noun):
        assert not re.search("([sxzo]|ch|sh|[^aeiou]y)$", noun)


def test_they_are_of_all_lengths_and_beginnings() -> None:
    some = made(invent_name)
    assert {len(name) for name in some} >= set(range(3, 14))
    assert len({name[:3] for name in some}) > 600 and len({name[-3:] for name in some}) > 600
    assert 0.01 < sum(not name.isascii() for name in some) / COUNT < 0.15


def test_cities_have_two_words_now_and_then() -> None:
    assert 0.1 < sum(" " in city for city in made(invent_city)) / COUNT < 0.2


def test_a_drawn_value_is_invented_in_training_only() -> None:
    random = Random(0)
    drawn = [draw(pools.CITIES, invent_city, random, False) for _ in range(COUNT)]
    invented = [city for city in drawn if city not in part(pools.CITIES, False)]
    assert not set(invented) & set(pools.CITIES)
    assert abs(len(invented) / COUNT - INVENTED) < 0.05
    assert {draw(pools.CITIES, invent_city, random, True) for _ in range(COUNT)} == set(part(pools.CITIES, True))


def test_what_is_held_out_is_drawn_with_one_draw_and_no_other() -> None:
    random, same = Random(0), Random(0)
    for _ in range(100):
        assert draw(pools.NOUNS, invent_noun, random, True) == same.choice(part(pools.NOUNS, True))


def test_real_words_are_sorted_and_none_that_mails_have_anyway() -> None:
    for listed in (REAL, PROPER):
        assert listed == sorted(set(listed))
        for word in listed:
            assert re.fullmatch("[a-z]{3,12}", word)
            assert not is_taken(word) and not word.endswith(DATES)
    assert not set(REAL) & set(PROPER)
    assert len(REAL) > 6000 and len(PROPER) > 1500


def test_many_words_are_real_ones_and_many_names_are_names() -> None:
    assert 0.4 < sum(word in {*REAL} for word in made(invent_word)) / COUNT < 0.55
    names = [name.lower() for name in made(invent_name)]
    assert all(0.17 < sum(name in listed for name in names) / COUNT < 0.3 for listed in (set(REAL), set(PROPER)))


def test_words_in_mails_are_taken_in_plural_and_singular() -> None:
    assert is_taken("desk") and is_taken("desks") and not is_taken("desktop")
