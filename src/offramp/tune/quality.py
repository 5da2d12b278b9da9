"""What tuning the trunk did to the model at full depth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from offramp.tune.features import Features, Half
from offramp.tune.samples import Sample
from offramp.tune.trunk import Floats, LmHead


def compare(original: Features, tuned: Features, lm_head: LmHead) -> dict[str, Any]:
    """Cross-entropy (nats a token) of the answers of the same samples under both trunks, and how often both choose the
    same token."""
    rows = np.flatnonzero(original.choice >= 0)
    following = next_tokens(original.samples)[rows]

    def loss(features: Features) -> float:
        logits = lm_head.logits_of(wide(features.top, rows), following)
        return float((features.log_sum[rows] - logits).mean())

    return {
        "tokens": len(rows),
        "original": loss(original),
        "tuned": loss(tuned),
        "same_choice": float((original.choice[rows] == tuned.choice[rows]).mean()),
        "original_right": float((original.choice[rows] == following).mean()),
        "tuned_right": float((tuned.choice[rows] == following).mean()),
    }


def next_tokens(samples: Sequence[Sample]) -> np.ndarray:
    """The token after each token of the samples, one sample after the other; 0 after the last of one."""
    return np.concatenate([np.array([*s.token_ids[1:], 0], dtype=np.int32) for s in samples])


def wide(rows: Half, which: np.ndarray) -> Floats:
    """Some hidden states in float32."""
    return np.asarray(rows[which], dtype=np.float32)
