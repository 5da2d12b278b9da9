"""Whole sequences in batches: which go into a step, and which are run side by side."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from offramp.tune.samples import Sample
from offramp.tune.sizes import CPU, sizes


class Batch(NamedTuple):
    """Sequences side by side.

    `ids` [sequences, tokens]: all tokens but the last of each, and padding. `rows` [answer tokens]: where their flat
    places choose an answer token; `next` [answer tokens]: those tokens. `numbers`: which samples these are.
    """

    ids: Tensor
    rows: Tensor
    next: Tensor
    numbers: tuple[int, ...]


def deal(samples: Sequence[Sample], numbers: Sequence[int], tokens: int, epochs: int, seed: int) -> list[list[int]]:
    """The `numbers` of samples in steps of at least `tokens` answer tokens; each epoch has an order of its own."""
    steps: list[list[int]] = []
    have = tokens
    for epoch in range(epochs):
        for number in np.random.default_rng([seed, epoch]).permutation(numbers):
            if have >= tokens:
                steps.append([])
                have = 0
            steps[-1].append(int(number))
            have += len(samples[number].scored)
    return steps


def batches(samples: Sequence[Sample], numbers: Sequence[int], device: torch.device = CPU) -> Iterator[Batch]:
    """The samples `numbers`, those of about the same length side by side."""
    most = sizes(device).tokens
    waiting: list[int] = []
    for number in sorted(numbers, key=lambda i: len(samples[i].token_ids)):
        if waiting and (len(waiting) + 1) * (len(samples[number].token_ids) - 1) > most:
            yield _batch(samples, waiting, device)
            waiting = []
        waiting.append(number)
    if waiting:
        yield _batch(samples, waiting, device)


def _batch(samples: Sequence[Sample], numbers: Sequence[int], device: torch.device) -> Batch:
    width = max(len(samples[i].token_ids) for i in numbers) - 1
    ids = torch.zeros((len(numbers), width), dtype=torch.int64)
    rows, following = [], []
    for line, number in enumerate(numbers):
        tokens, scored = samples[number].token_ids, samples[number].scored
        ids[line, : len(tokens) - 1] = torch.tensor(tokens[:-1])
        rows += [line * width + p for p in scored]
        following += [tokens[p + 1] for p in scored]
    return Batch(
        ids.to(device), torch.tensor(rows, device=device), torch.tensor(following, device=device), tuple(numbers)
    )
