"""Bias, masks, bans and penalties on logits, in the order of `offramp.types.sampling.SamplingParams`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from offramp.executors.torch.heads import HeadModule, Vocabulary
from offramp.types.executor import ScoreRow


def adjust(logits: Tensor, rows: Sequence[ScoreRow], head: HeadModule) -> list[int]:
    """Apply bias, masks, bans and penalties to `logits` [rows, columns], in place.

    Returns:
        The rows in which nothing may be chosen, because a positive bias names a token outside the head's vocabulary.
    """
    refused = []
    for i, row in enumerate(rows):
        if row.sampling.logit_bias and not _add_bias(logits[i], row, head.vocabulary):
            refused.append(i)
        if row.allowed is not None or row.banned:
            _forbid(logits[i], row, head)
        if row.sampling.reads_history:
            _penalise(logits[i], row, head.vocabulary)
    return refused


def _add_bias(logits: Tensor, row: ScoreRow, vocabulary: Vocabulary) -> bool:
    """Add `logit_bias`; false if a positive one names a token outside the vocabulary."""
    columns, known = vocabulary.find(list(row.sampling.logit_bias))
    bias = torch.tensor(list(row.sampling.logit_bias.values()), dtype=logits.dtype)
    inside = columns >= 0
    logits[columns[inside].to(logits.device)] += bias[inside].to(logits.device)
    return not bool((known & ~inside & (bias > 0)).any())


def _forbid(logits: Tensor, row: ScoreRow, head: HeadModule) -> None:
    """Take away what the mask does not allow and what is banned; the output for other tokens only if all of them go."""
    vocabulary = head.vocabulary
    left = _unpacked(row.allowed, len(vocabulary.columns))
    banned = torch.tensor([token for token in row.banned if 0 <= token < len(left)], dtype=torch.int64)
    left[banned] = False
    has_column = vocabulary.columns >= 0
    logits[: len(vocabulary.ids)].masked_fill_(~left[has_column].to(logits.device), -torch.inf)
    if head.has_other and not left[~has_column].any():
        logits[-1] = -torch.inf


def _unpacked(allowed: bytes | None, vocab_size: int) -> Tensor:
    """Which tokens a row's mask allows: bool [vocab_size]."""
    if allowed is None:
        return torch.ones(vocab_size, dtype=torch.bool)
    whole = allowed.ljust(-(-vocab_size // 8), b"\0")  # NumPy does not clear the rest if there are no bits at all
    bits = np.unpackbits(np.frombuffer(whole, dtype=np.uint8), count=vocab_size, bitorder="little")
    return torch.from_numpy(bits.view(np.bool_))


def _penalise(logits: Tensor, row: ScoreRow, vocabulary: Vocabulary) -> None:
    """Repetition penalty over prompt and output (Keskar et al. 2019), frequency and presence over output (OpenAI)."""
    sampling = row.sampling
    if sampling.repetition_penalty != 1:
        seen = _inside(vocabulary, list({*row.prompt, *row.output})).to(logits.device)
        old = logits[seen]
        logits[seen] = torch.where(old > 0, old / sampling.repetition_penalty, old * sampling.repetition_penalty)
    if sampling.frequency_penalty or sampling.presence_penalty:
        counts = torch.bincount(_inside(vocabulary, row.output), minlength=len(vocabulary.ids))
        penalty = sampling.frequency_penalty * counts + sampling.presence_penalty * (counts > 0)
        logits[: len(vocabulary.ids)] -= penalty.to(logits)


def _inside(vocabulary: Vocabulary, tokens: Sequence[int]) -> Tensor:
    columns, _ = vocabulary.find(tokens)
    return columns[columns >= 0]
