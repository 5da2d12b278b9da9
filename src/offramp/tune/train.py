"""Training exit heads on stored features.

Heads of several exits learn side by side from the same tokens, since the top's distribution is the same for all. They
do not touch one another, and each keeps what was best for it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from offramp.tune.curves import Curve, Judged, curve_of
from offramp.tune.features import Features, Half
from offramp.tune.heads import Head, Words
from offramp.tune.loop import Loop
from offramp.tune.loss import kl_backward, target_of
from offramp.tune.settings import TrainSettings

Rows = npt.NDArray[np.int64]

LOGITS = 2**22
"""Logits that are held at once."""

JUDGED_IN_TRAINING = 4096
"""Held-out tokens of an evaluation while training goes on."""


class Trainer(Loop):
    """Trains heads.

    Args:
        heads: one for each exit, all over the same `words`.
        features: what they learn from.
        settings: how.
    """

    def __init__(self, heads: Sequence[Head], words: Words, features: Features, settings: TrainSettings) -> None:
        super().__init__([head.tensors for head in heads], settings)
        self._heads, self._words, self._features = heads, words, features
        self._train, self._held_out = features.rows(held_out=False), features.rows(held_out=True)
        self.batch = min(settings.batch_tokens, len(self._train))
        self._per_epoch = len(self._train) // self.batch
        self._order, self._epoch = np.zeros(0, dtype=np.int64), -1

    @property
    def steps(self) -> int:
        """All steps."""
        return self._settings.epochs * self._per_epoch

    def tokens(self, step: int) -> int:
        """How many tokens so many steps take."""
        return step * self.batch

    def curves(self, most: int = 8 * JUDGED_IN_TRAINING) -> list[Curve]:
        """How good each exit is, on up to `most` held-out tokens."""
        judged = judge(self._heads, self._words, self._features, self._held_out[:most])
        return [curve_of(h.spec.layer, kl, j) for h, (kl, j) in zip(self._heads, judged, strict=True)]

    def _add_gradients(self, step: int) -> float:
        """Those of the mean KL of all heads."""
        rows = self._rows(step)
        total = 0.0
        for part in chunks(np.sort(rows), self._words):
            top, log_sum = gather(self._features.top, part), torch.from_numpy(self._features.log_sum[part])
            target = target_of(self._words, top, log_sum)
            for head in self._heads:
                hidden = gather(self._features.layers[head.spec.layer], part)
                total += kl_backward(head, hidden, target, 1 / len(rows))
        return total / len(rows) / len(self._heads)

    def _rows(self, step: int) -> Rows:
        epoch, number = divmod(step, self._per_epoch)
        if epoch != self._epoch:
            self._epoch = epoch
            self._order = np.random.default_rng([self._settings.train_seed, epoch]).permutation(self._train)
        return self._order[number * self.batch : (number + 1) * self.batch]

    def _look(self) -> tuple[dict[str, Any], list[float]]:
        """KL and agreement of each head; the KL is its score."""
        found = judge(self._heads, self._words, self._features, self._held_out[:JUDGED_IN_TRAINING])
        return judged_entry(self._heads, found), [kl for kl, _ in found]


def judged_entry(heads: Sequence[Head], found: Sequence[tuple[float, Judged]]) -> dict[str, Any]:
    """What a history keeps of heads that were judged."""
    pairs = zip(heads, found, strict=True)
    return {
        "exits": {str(h.spec.layer): {"kl": kl, "agreement": float(j.agrees.mean())} for h, (kl, j) in pairs},
    }


@torch.no_grad()
def judge(heads: Sequence[Head], words: Words, features: Features, rows: Rows) -> list[tuple[float, Judged]]:
    """Mean KL of each head at `rows`, and its confidence and agreement there; in float32."""
    totals = [0.0] * len(heads)
    confidence, agrees = np.zeros((len(heads), len(rows)), np.float32), np.zeros((len(heads), len(rows)), bool)
    ids = torch.cat((words.ids, torch.tensor([-1])))
    done = 0
    for part in chunks(rows, words):
        target = target_of(words, gather(features.top, part), torch.from_numpy(features.log_sum[part]))
        choice, span = torch.from_numpy(features.choice[part]), slice(done, done + len(part))
        for k, head in enumerate(heads):
            log_probs = head.logits(gather(features.layers[head.spec.layer], part)).log_softmax(-1)
            totals[k] += float((target.negative_entropy - (target.probs * log_probs).sum(-1)).sum())
            best, winner = log_probs.max(-1)
            confidence[k, span] = best.exp().where(winner < len(words.ids), 0.0).numpy()
            agrees[k, span] = (ids[winner] == choice).numpy()
        done += len(part)
    return [(total / len(rows), Judged(confidence[k], agrees[k])) for k, total in enumerate(totals)]


def gather(rows: Half, which: Rows) -> Tensor:
    """Some rows of a file of hidden states, in float32."""
    return torch.from_numpy(rows[which].astype(np.float32))


def chunks(rows: Rows, words: Words) -> Iterator[Rows]:
    """`rows` in parts whose logits fit in memory."""
    size = max(1, LOGITS // len(words.ids))
    for start in range(0, len(rows), size):
        yield rows[start : start + size]
