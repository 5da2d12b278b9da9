"""How far answers agree with those of full depth to the same prompts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from offramp.bench.load.outcomes import Outcome
from offramp.tokenizer import Tokenizer


def agreement(outcomes: Sequence[Outcome], reference: Sequence[Outcome], tokenizer: Tokenizer | None) -> dict[str, Any]:
    """Compare answers of two runs, in tokens of their texts, or in characters without a tokenizer.

    `equal_tokens` is the share of the reference's tokens before the first that differs: behind it the two have
    different prefixes, and say nothing about each other. Shares are None where no request succeeded in both runs.
    """
    pairs = [(a, b) for a, b in zip(outcomes, reference, strict=True) if a.error is None and b.error is None]
    equal = same = total = 0
    for ours, theirs in pairs:
        equal += ours.text == theirs.text
        a, b = (_units(outcome.text, tokenizer) for outcome in (ours, theirs))
        same += next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
        total += len(b)
    return {
        "requests": len(pairs),
        "equal_requests": equal / len(pairs) if pairs else None,
        "equal_tokens": same / total if total else None,
        "unit": "character" if tokenizer is None else "token",
    }


def _units(text: str, tokenizer: Tokenizer | None) -> Sequence[object]:
    return text if tokenizer is None else tokenizer.encode(text, add_special_tokens=False)
