"""ROUGE-L (Lin 2004): how alike two texts are, in [0, 1]."""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence

WORD = re.compile(r"[^\W_]+")


def rouge_l(text: str, reference: str) -> float:
    """F1 of the longest common subsequence of words: lower-case runs of letters and digits of any
    script, without stemming."""
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
