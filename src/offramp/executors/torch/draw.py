"""The draw of a token from adjusted logits: temperature, `top_k`, `top_p`, `min_p`, then Gumbel-max."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from offramp.executors.noise import position_keys
from offramp.executors.torch.heads import Vocabulary
from offramp.executors.torch.noise import gumbel
from offramp.types.executor import ScoreRow

NARROW = 256
"""Columns looked at first in rows that truncate; only where more of them could be kept are all columns sorted."""


def choose(logits: Tensor, winner: Tensor, rows: Sequence[ScoreRow], vocabulary: Vocabulary) -> Tensor:
    """The column chosen in each row of `logits` [rows, columns], "other" left out: int64 [rows].

    Greedy rows take `winner` [rows], the first column with the largest logit. The others take the largest of logits /
    temperature, after truncation, plus Gumbel noise keyed by (seed, position of the chosen token, token id): an exact
    draw from the truncated distribution (Gumbel-max; Maddison, Tarlow and Minka 2014).
    """
    plain: list[int] = []
    truncating: list[int] = []
    for i, row in enumerate(rows):
        if not row.sampling.greedy:
            (plain if _limits(row) == (0, 1, 0) else truncating).append(i)
    chosen = winner.clone()
    for drawn in (plain, truncating):
        if drawn:
            picked = torch.tensor(drawn, device=logits.device)
            columns = _draw(logits[picked], [rows[i] for i in drawn], vocabulary, truncate=drawn is truncating)
            chosen[picked] = columns.to(logits.device)
    return chosen


def _limits(row: ScoreRow) -> tuple[int, float, float]:
    return row.sampling.top_k, row.sampling.top_p, row.sampling.min_p


def _draw(logits: Tensor, rows: Sequence[ScoreRow], vocabulary: Vocabulary, *, truncate: bool) -> Tensor:
    """Columns [rows] drawn in float64; on a device without it (MPS), on the CPU. May overwrite `logits`."""
    device = torch.device("cpu") if logits.device.type == "mps" else logits.device
    scaled, ids = logits.to(device).to(torch.float64), vocabulary.ids.to(device)
    temperature = torch.tensor([[row.sampling.temperature] for row in rows], dtype=torch.float64, device=device)
    scaled.sub_(scaled.amax(-1, keepdim=True)).div_(temperature)
    bits = position_keys([row.seed for row in rows], [row.position + 1 for row in rows])
    keys = torch.from_numpy(bits.view(np.int64)).to(device)
    if not truncate:
        return (scaled + gumbel(keys, ids)).argmax(-1)
    limits = torch.tensor([_limits(row) for row in rows], dtype=torch.float64, device=device)
    return _draw_truncated(scaled, limits, keys, ids, min(NARROW, len(ids)))


def _draw_truncated(scaled: Tensor, limits: Tensor, keys: Tensor, ids: Tensor, width: int) -> Tensor:
    columns, values, settled = candidates(scaled, limits, width)
    best = (values + gumbel(keys, ids[columns])).argmax(-1, keepdim=True)
    drawn = columns.gather(-1, best).squeeze(-1)
    if not settled.all():
        rest = (~settled).nonzero().squeeze(-1)
        drawn[rest] = _draw_truncated(scaled[rest], limits[rest], keys[rest], ids, len(ids))
    return drawn


def candidates(scaled: Tensor, limits: Tensor, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """The `width` most likely columns, and which of them `top_k`, `top_p` and `min_p` keep.

    The three apply one after the other, each to the distribution that the one before left. The most likely token always
    stays; among equals, lower ids stay.

    Args:
        scaled: logits / temperature [rows, columns].
        limits: `top_k` (0 for none), `top_p` and `min_p` of each row [rows, 3].
        width: how many columns to look at.

    Returns:
        Columns, most likely first [rows, width]; `scaled` there, -inf where dropped [rows, width]; and whether all that
        is kept is certain to be among them [rows].
    """
    top_k, top_p, min_p = limits[:, :, None].unbind(1)
    columns = scaled.topk(width).indices.sort(dim=-1).values
    values, order = scaled.gather(-1, columns).sort(dim=-1, descending=True, stable=True)
    rank = torch.arange(width, device=scaled.device)
    beyond = (top_k > 0) & (rank >= top_k)
    among = values.masked_fill(beyond, -torch.inf)
    total = torch.where(top_k > 0, among.logsumexp(-1, keepdim=True), scaled.logsumexp(-1, keepdim=True))
    probs = (among - total).exp()
    before = probs.cumsum(-1) - probs
    dropped = beyond | ((top_p < 1) & (before >= top_p) & (rank > 0)) | (probs < min_p * probs[:, :1])
    dropped |= values.isneginf()
    last_kept = values.masked_fill(dropped, torch.inf).amin(-1)
    settled = (last_kept > values[:, -1]) & (top_k[:, 0] <= width)
    if width == scaled.shape[-1]:
        settled = torch.ones_like(settled)
    return columns.gather(-1, order), values.masked_fill(dropped, -torch.inf), settled
