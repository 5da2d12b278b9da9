"""The reduced vocabulary of exit heads: the most frequent tokens."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from offramp.tune.heads import Words
from offramp.tune.request import TuneRequest
from offramp.tune.samples import Sample
from offramp.tune.workshop import Workshop


def words_of(request: TuneRequest, shop: Workshop, samples: Sequence[Sample]) -> Words:
    """The words that heads score: the most frequent in the answers that are trained on."""
    spec = shop.model.spec
    size = min(request.head.head_words or spec.vocab_size, spec.vocab_size)
    answers = [np.array(s.token_ids[s.prompt_tokens :], np.int32) for s in samples if not s.held_out]
    ids = frequent_tokens(np.concatenate(answers), size, spec.vocab_size, spec.eos_token_ids)
    return Words.of(ids, shop.lm_head, spec, shop.device)


def frequent_tokens(
    choices: npt.NDArray[np.int32], size: int, vocab_size: int, always: Sequence[int] = ()
) -> tuple[int, ...]:
    """The `size` most frequent tokens among `choices`, and `always`: ids, ascending.

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
