"""How alike two texts are: ROUGE-L (Lin 2004) and chrF (Popovic 2015), both in [0, 1]."""

from __future__ import annotations

from collections import Counter

from offramp.calibrate.rouge import longest_common, rouge_l

__all__ = ["chrf", "longest_common", "rouge_l"]

ORDER, BETA = 6, 2.0
"""chrF's longest n-gram, and how much more recall counts than precision: chrF2, as sacreBLEU has it."""


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
