"""How good the exits of a T5 are on held-out pairs, by each criterion: whether a token may leave, and what it costs.

Tokens before are the target's own, and every layer has seen them whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from offramp.tune.calm import answer_states, batches_of, classify, first_pairs
from offramp.tune.curves import Curve, Judged, curve_of
from offramp.tune.pairs import Pairs
from offramp.tune.samples import JUDGED
from offramp.tune.t5 import DenseT5

CRITERIA = ("max_prob", "margin", "saturation", "classifier")


@dataclass(frozen=True)
class Verdict:
    """Curves of the exits by criterion, how many target tokens were judged, how many of them the top chooses, its mean
    cross-entropy, and the mean of the first layers that choose what the top does (the oracle's depth)."""

    curves: dict[str, list[Curve]]
    tokens: int
    right: float
    loss: float
    oracle: float


@torch.no_grad()
def judge_exits(
    model: DenseT5, layers: Sequence[int], classifiers: Sequence[dict[str, Tensor]], pairs: Pairs
) -> Verdict:
    """Judge the exits at `layers`, each with its classifier."""
    seen: list[dict[str, Tensor]] = []
    for batch in batches_of(pairs, first_pairs(pairs, JUDGED), model.head.device):
        states = answer_states(model, batch)
        x = torch.stack([model.normed(states[layer - 1]) for layer in layers])
        seen.append(
            {
                **_judged(model, [states[layer - 1] for layer in layers], states[-1], batch.next),
                "classifier": torch.sigmoid(classify(classifiers, x)),
                "oracle": _first_right([model.logits(hidden).argmax(-1) for hidden in states])[None],
            }
        )
    found = {name: torch.cat([part[name] for part in seen], dim=1).cpu().numpy() for name in seen[0]}
    curves = {
        criterion: [
            curve_of(
                layer,
                float(found["kl"][k].mean()),
                Judged(found[criterion][k].astype(np.float32), found["agrees"][k].astype(np.bool_)),
            )
            for k, layer in enumerate(layers)
        ]
        for criterion in CRITERIA
    }
    return Verdict(
        curves,
        found["top"].shape[1],
        float(found["top"][0].mean()),
        float(found["top"][1].mean()),
        float(found["oracle"].mean()),
    )


def _judged(model: DenseT5, states: Sequence[Tensor], final: Tensor, target: Tensor) -> dict[str, Tensor]:
    """What is known of tokens: [exits, tokens] each; of the top: whether it is right, and its loss, [2, tokens]."""
    top = model.logits(final).float().log_softmax(-1)
    choice = top.argmax(-1)
    rows: dict[str, list[Tensor]] = {name: [] for name in ("agrees", "kl", "max_prob", "margin", "saturation")}
    before: Tensor | None = None
    for hidden in states:
        said = model.logits(hidden).float().log_softmax(-1)
        first, second = said.topk(2).values.exp().unbind(-1)
        rows["agrees"].append(said.argmax(-1) == choice)
        rows["kl"].append((top.exp() * (top - said)).sum(-1))
        rows["max_prob"].append(first)
        rows["margin"].append(first - second)
        same = torch.zeros_like(first) if before is None else F.cosine_similarity(before, hidden, dim=-1).clamp_min(0)
        rows["saturation"].append(same)
        before = hidden
    loss = F.nll_loss(top, target, reduction="none")
    return {
        **{name: torch.stack(values) for name, values in rows.items()},
        "top": torch.stack([(choice == target).float(), loss]),
    }


def _first_right(choices: Sequence[Tensor]) -> Tensor:
    """The first layer, from 1, that chooses what the last does."""
    agree = torch.stack([choice == choices[-1] for choice in choices])
    return agree.float().argmax(0) + 1.0


def said_of(verdict: Verdict) -> dict[str, Any]:
    """The verdict as provenance has it; `exits` are by `max_prob`."""
    curves = {name: [curve.to_dict() for curve in found] for name, found in verdict.curves.items()}
    return {
        "exits": curves["max_prob"],
        "criteria": {name: curves[name] for name in CRITERIA[1:]},
        "full_depth_of": {"tokens": verdict.tokens, "right": verdict.right, "loss": verdict.loss},
        "oracle_depth": verdict.oracle,
    }
