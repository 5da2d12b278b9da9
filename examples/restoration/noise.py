"""What happens to a passage: capitals and punctuation go, words are misspelt, lose their vowels or stick together."""

from __future__ import annotations

import re
from random import Random

MISSPELT, VOWELLESS, STUCK = 0.15, 0.04, 0.03
"""How often a word of `SPELLABLE` letters or more is misspelt, loses its vowels, or sticks to the next one."""

SPELLABLE = 4

NEIGHBOURS = {
    **{"a": "qsz", "b": "vgn", "c": "xdv", "d": "sfe", "e": "wrd", "f": "dgr", "g": "fht", "h": "gjy", "i": "uok"},
    **{"j": "hku", "k": "jli", "l": "kop", "m": "nj", "n": "bmh", "o": "ipl", "p": "ol", "q": "wa", "r": "etf"},
    **{"s": "adw", "t": "ryg", "u": "yij", "v": "cbf", "w": "qes", "x": "zcs", "y": "tuh", "z": "xas"},
}
"""Keys next to one another."""


def spoil(passage: str, random: Random) -> str:
    """The passage as it is given to be restored; the same for the same state of `random`."""
    words = re.sub(r"[^a-z0-9 ]", "", re.sub(r"[-/]", " ", passage.lower())).split()
    found = ""
    for word in words:
        draw = random.random()
        if len(word) >= SPELLABLE and word.isalpha():
            if draw < MISSPELT:
                word = misspell(word, random)
            elif draw < MISSPELT + VOWELLESS:
                word = word[0] + re.sub(r"[aeiou]", "", word[1:])
        found += word if random.random() < STUCK else f"{word} "
    return found.strip()


def misspell(word: str, random: Random) -> str:
    """One slip of the fingers behind the first letter: two letters swapped, one left out, doubled or beside its key."""
    place, way = random.randrange(1, len(word) - 1), random.randrange(4)
    before, letter, after = word[:place], word[place], word[place + 1 :]
    if way == 0:
        return before + after[0] + letter + after[1:]
    if way == 1:
        return before + after
    if way == 2:
        return before + letter + letter + after
    return before + random.choice(NEIGHBOURS[letter]) + after
