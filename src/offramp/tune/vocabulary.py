"""The reduced vocabulary of exit heads: the tokens that the top chooses most often."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt


def frequent_tokens(
    choices: npt.NDArray[np.int32], size: int, vocab_size: int, always: Sequence[int] = ()
) -> tuple[int, ...]:
    """The `size` most frequent tokens among the top's `choices`, and `always`: ids, ascending.

    Where the data have fewer, the lowest ids fill up: tokenizers number their commonest merges first.
    """
    counts = np.bincount(choices, minlength=vocab_size)
    counts[list(always)] = len(choices) + 1
    # Stable: among equally frequent tokens the lowest id comes first.
    order = np.argsort(-counts, kind="stable")[:size]
    return tuple(sorted(order.tolist()))


def coverage(choices: npt.NDArray[np.int32], words: Sequence[int]) -> float:
    """The share of `choices` that are in a vocabulary."""
    return float(np.isin(choices, np.array(words)).mean()) if len(choices) else 0.0
