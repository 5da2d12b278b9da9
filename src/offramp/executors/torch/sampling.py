"""How a token is drawn from logits: bias, bans and penalties, truncation, and the Gumbel-max draw.

The order of application is that of `offramp.types.sampling.SamplingParams`, the same at exits and at the top.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from offramp.executors.noise import position_keys
from offramp.executors.torch.heads import HeadModule, Vocabulary
from offramp.executors.torch.noise import gumbel
from offramp.types.executor import ScoreRow


def adjust(logits: Tensor, rows: Sequence[ScoreRow], head: HeadModule) -> list[int]:
    """Apply bias, bans and penalties to `logits` [rows, columns], in place.

    Returns:
        The rows in which nothing may be chosen, because a positive bias names a token outside the head's vocabulary.
    """
    refused = []
    for i, row in enumerate(rows):
        if row.sampling.logit_bias and not _add_bias(logits[i], row, head.vocabulary):
            refused.append(i)
        if row.banned:
            _ban(logits[i], row.banned, head)
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


def _ban(logits: Tensor, banned: Sequence[int], head: HeadModule) -> None:
    """Ban tokens; the output for other tokens only if every one of them is banned."""
    columns, known = head.vocabulary.find(sorted(set(banned)))
    inside = columns >= 0
    logits[columns[inside].to(logits.device)] = -torch.inf
    if head.has_other and int((known & ~inside).sum()) == head.vocabulary.num_outside:
        logits[-1] = -torch.inf


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


def choose(logits: Tensor, winner: Tensor, rows: Sequence[ScoreRow], vocabulary: Vocabulary) -> Tensor:
    """The column chosen in each row of `logits` [rows, columns], "other" left out: int64 [rows].

    Greedy rows take `winner` [rows], the first column with the largest logit. The others take the largest of logits /
    temperature, after `top_k`, `top_p` and `min_p`, plus Gumbel noise keyed by (seed, position of the chosen token,
    token id): an exact draw from the truncated distribution (Gumbel-max; Maddison, Tarlow and Minka 2014).
    """
    drawn = [i for i, row in enumerate(rows) if not row.sampling.greedy]
    if not drawn:
        return winner
    picked = torch.tensor(drawn, device=logits.device)
    columns = _draw(logits[picked], [rows[i] for i in drawn], vocabulary)
    return winner.index_copy(0, picked, columns.to(logits.device))


def _draw(logits: Tensor, rows: Sequence[ScoreRow], vocabulary: Vocabulary) -> Tensor:
    """In float64; on a device without it (MPS), on the CPU."""
    device = torch.device("cpu") if logits.device.type == "mps" else logits.device
    temperature = torch.tensor([row.sampling.temperature for row in rows], dtype=torch.float64, device=device)
    exact = logits.to(device).to(torch.float64)
    scaled = truncate((exact - exact.amax(-1, keepdim=True)) / temperature[:, None], rows)
    keys = position_keys([row.seed for row in rows], [row.position + 1 for row in rows])
    noise = gumbel(torch.from_numpy(keys.view(np.int64)).to(device), vocabulary.ids.to(device))
    return (scaled + noise).argmax(-1)


def truncate(scaled: Tensor, rows: Sequence[ScoreRow]) -> Tensor:
    """`scaled` [rows, columns] (logits / temperature) with what `top_k`, `top_p` and `min_p` drop at -inf.

    They apply one after the other, each to the distribution that the one before left. The most likely token always
    stays; among equals, lower ids stay.
    """
    kinds = [(row.sampling.top_k, row.sampling.top_p, row.sampling.min_p) for row in rows]
    if all(kind == (0, 1, 0) for kind in kinds):
        return scaled
    top_k, top_p, min_p = torch.tensor(kinds, dtype=scaled.dtype, device=scaled.device)[:, :, None].unbind(1)
    ordered, order = scaled.sort(dim=-1, descending=True, stable=True)
    rank = torch.arange(scaled.shape[-1], device=scaled.device)
    ordered = ordered.masked_fill((top_k > 0) & (rank >= top_k), -torch.inf)
    probs = ordered.softmax(-1)
    before = probs.cumsum(-1) - probs
    dropped = ((top_p < 1) & (before >= top_p) & (rank > 0)) | (probs < min_p * probs[:, :1])
    return scaled.scatter(-1, order, ordered.masked_fill(dropped, -torch.inf))
