"""How alike two texts are: ROUGE-L (Lin 2004) and chrF (Popovic 2015), both in [0, 1]."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Hashable, Sequence

WORD = re.compile(r"[a-z0-9]+")

ORDER, BETA = 6, 2.0
"""chrF's longest n-gram, and how much more recall counts than precision: chrF2, as sacreBLEU has it."""


def rouge_l(text: str, reference: str) -> float:
    """F1 of the longest common subsequence of words: lower-case runs of letters and digits, without stemming."""
    words, wanted = WORD.findall(text.lower()), WORD.findall(reference.lower())
    if not words or not wanted:
        return float(text == reference)
    common = longest_common(words, wanted)
    return 2 * common / (len(words) + len(wanted))


def longest_common(a: Sequence[Hashable], b: Sequence[Hashable]) -> int:
    """Length of the longest common subsequence, a row of bits at a time (Hyyro 2004)."""
    places: dict[Hashable, int] = {}
    for i, item in enumerate(b):
        places[item] = places.get(item, 0) | 1 << i
    full = (1 << len(b)) - 1
    row = full
    for item in a:
        matches = row & places.get(item, 0)
        row = ((row + matches) | (row - matches)) & full
    return len(b) - row.bit_count()


def chrf(text: str, reference: str) -> float:
    """F-score of character n-grams of 1 to 6, spaces aside, averaged over the lengths that both texts have."""
    text, reference = "".join(text.split()), "".join(reference.split())
    precision = recall = 0.0
    orders = 0
    for n in range(1, ORDER + 1):
        grams, wanted = _grams(text, n), _grams(reference, n)
        if grams and wanted:
            matches = (grams & wanted).total()
            precision += matches / grams.total()
            recall += matches / wanted.total()
            orders += 1
    if not orders:
        return float(text == reference)
    if not precision + recall:
        return 0.0
    precision, recall = precision / orders, recall / orders
    return (1 + BETA**2) * precision * recall / (BETA**2 * precision + recall)


def _grams(text: str, n: int) -> Counter[str]:
    return Counter(text[i : i + n] for i in range(len(text) - n + 1))
