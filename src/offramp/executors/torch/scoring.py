"""From logits to `Scored`: features, the chosen token and log-probabilities, batched over rows."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from offramp.executors.torch.draw import choose
from offramp.executors.torch.heads import HeadModule
from offramp.executors.torch.penalties import adjust
from offramp.types.executor import HIDDEN_FEATURES, Feature, Scored, ScoreRow

SILENT: dict[Feature, float] = {"max_prob": 0.0, "margin": 0.0, "entropy": 1.0}
"""What token features are where nothing may be chosen: the least confident values."""


def score_rows(
    head: HeadModule,
    hidden: Tensor,
    previous: Tensor | None,
    rows: Sequence[ScoreRow],
    needs: frozenset[Feature],
    pick: bool,
    past: Tensor | None = None,
) -> tuple[list[Scored], Tensor | None]:
    """Score hidden states [rows, hidden_size]; `previous` holds them at the previous boundary, if there is one, and
    `past` the deep states of the tokens before, if the head reads them.

    Also returns the rows' own deep states [rows, hidden_size], None where no head was evaluated.

    Nothing is chosen, and token features are `SILENT`, in rows where the logits are not finite, no candidate is left,
    "other" has the largest logit, or a positive bias names a token outside the vocabulary.
    """
    joined = hidden if head.past is None or past is None else head.past(hidden, past)
    features = hidden_features(head, joined, hidden, previous, needs)
    if not pick and needs <= HIDDEN_FEATURES:
        return _assemble(features, [None] * len(rows), [None] * len(rows)), None
    states = head.states(joined)
    logits = head.logits(states)
    refused = adjust(logits, rows, head)
    best, winner = logits.max(-1)
    num_tokens = len(head.vocabulary.ids)
    speaks = best.isfinite() & (winner < num_tokens)
    speaks[refused] = False
    for name, values in token_features(logits, best, needs).items():
        features[name] = values.where(speaks, SILENT[name])
    tokens: list[int | None] = [None] * len(rows)
    logprobs: list[tuple[tuple[int, float], ...] | None] = [None] * len(rows)
    if pick:
        columns = choose(logits[:, :num_tokens], winner.clamp(max=num_tokens - 1), rows, head.vocabulary)
        chosen, spoke = head.vocabulary.ids[columns].tolist(), speaks.tolist()
        tokens = [token if ok else None for token, ok in zip(chosen, spoke, strict=True)]
        for i, row in enumerate(rows):
            if row.sampling.logprobs is not None and spoke[i]:
                logprobs[i] = _logprobs(logits[i], columns[i], row.sampling.logprobs, head)
    return _assemble(features, tokens, logprobs), states


def hidden_features(
    head: HeadModule, joined: Tensor, hidden: Tensor, previous: Tensor | None, needs: frozenset[Feature]
) -> dict[Feature, Tensor]:
    """The features in `needs` that are read off hidden states: name -> [rows]; what is not finite counts as 0.

    `joined` are the hidden states together with the past, where the head reads it.
    """
    features: dict[Feature, Tensor] = {}
    if "classifier" in needs:
        features["classifier"] = head.classify(joined).nan_to_num(0)
    if "saturation" in needs and previous is not None:
        wide = torch.promote_types(hidden.dtype, torch.float32)
        cosine = F.cosine_similarity(hidden.to(wide), previous.to(wide), dim=-1)
        features["saturation"] = cosine.nan_to_num(0).clamp(0, 1)
    return features


def token_features(logits: Tensor, best: Tensor, needs: frozenset[Feature]) -> dict[Feature, Tensor]:
    """The features in `needs` of softmax(`logits` [rows, outcomes]), whose row maxima are `best`: name -> [rows].

    Values in rows without a finite logit are arbitrary.
    """
    features: dict[Feature, Tensor] = {}
    if needs <= HIDDEN_FEATURES:
        return features
    total = logits.logsumexp(-1)
    if "max_prob" in needs:
        features["max_prob"] = (best - total).exp().clamp(0, 1)
    if "margin" in needs:
        top = (logits.topk(min(2, logits.shape[-1])).values - total[:, None]).exp()
        features["margin"] = (top[:, 0] - top[:, 1:].sum(-1)).clamp(0, 1)
    if "entropy" in needs:
        log_probs = logits - total[:, None]
        summands = torch.where(logits > -torch.inf, log_probs * log_probs.exp(), 0)
        features["entropy"] = (-summands.sum(-1) / math.log(max(2, logits.shape[-1]))).clamp(0, 1)
    return features


def _logprobs(logits: Tensor, column: Tensor, k: int, head: HeadModule) -> tuple[tuple[int, float], ...]:
    """The chosen token's log-probability, then those of the `k` most likely tokens; banned tokens are left out."""
    tokens = logits.log_softmax(-1)[: len(head.vocabulary.ids)]
    values, order = tokens.topk(min(k, len(tokens)))
    columns = torch.cat((column[None], order[values > -torch.inf]))
    return tuple(zip(head.vocabulary.ids[columns].tolist(), tokens[columns].tolist(), strict=True))


def _assemble(
    features: dict[Feature, Tensor],
    tokens: Sequence[int | None],
    logprobs: Sequence[tuple[tuple[int, float], ...] | None],
) -> list[Scored]:
    listed = {name: values.tolist() for name, values in features.items()}
    return [
        Scored(tokens[i], {name: values[i] for name, values in listed.items()}, logprobs[i]) for i in range(len(tokens))
    ]
