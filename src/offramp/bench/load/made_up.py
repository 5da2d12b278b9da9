"""Made-up prompts: runs of the vocabulary from places that are drawn, as `vllm bench serve` has them."""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil, floor

import numpy as np

from offramp.tokenizer import Tokenizer

TRIES = 10
"""How often a prompt is corrected until it has as many tokens as it should."""


def made_up(
    tokenizer: Tokenizer, count: int, input_len: int, output_len: int, prefix_len: int, range_ratio: float, seed: int
) -> Iterator[tuple[str, int, int]]:
    """Prompts, how many tokens each has, and how many are to be generated.

    Lengths are drawn evenly, up to `range_ratio` below and above those given. On top come `prefix_len` tokens, the same
    for all, which stand first.
    """
    chance = np.random.default_rng(seed)
    words = [token for token in range(tokenizer.vocab_size) if token not in tokenizer.special_token_ids]
    prefix = [words[i] for i in chance.integers(0, len(words), prefix_len)]

    def lengths(middle: int, least: int) -> list[int]:
        low, high = floor(middle * (1 - range_ratio)), ceil(middle * (1 + range_ratio))
        return [max(int(n), least) for n in chance.integers(low, high + 1, count)]

    inputs, outputs = lengths(input_len, 0 if prefix else 1), lengths(output_len, 1)
    starts = chance.integers(0, len(words), count)
    for number, (start, size, output) in enumerate(zip(starts, inputs, outputs, strict=True)):
        run = [words[(int(start) + number + i) % len(words)] for i in range(size)]
        yield *_as_text(prefix + run, tokenizer, words, chance), output


def _as_text(ids: list[int], tokenizer: Tokenizer, words: list[int], chance: np.random.Generator) -> tuple[str, int]:
    """Text that is read as so many tokens, or nearly: what tokens spell together may be read as fewer or more."""
    wanted, text = len(ids), ""
    for _ in range(TRIES):
        text = tokenizer.decode(ids)
        ids = tokenizer.encode(text, add_special_tokens=False)
        if len(ids) == wanted:
            break
        ids = ids[:wanted] + [words[i] for i in chance.integers(0, len(words), max(0, wanted - len(ids)))]
    return text, len(tokenizer.encode(text, add_special_tokens=False))
