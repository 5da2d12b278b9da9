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
from offramp.tune.heads import Head, Inputs, Words
from offramp.tune.loop import Loop
from offramp.tune.loss import kl_backward, target_of
from offramp.tune.settings import TrainSettings

Rows = npt.NDArray[np.int64]

LOGITS = 2**21
"""Logits that are held at once: few enough to stay in cache."""

WINDOW = 32
"""Tokens in a row that are learnt from together where heads read the past."""

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
        self._window = WINDOW if any(head.spec.past == "deep" for head in heads) else 1
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

    def curves(self, step: int = 1, most: int = 8 * JUDGED_IN_TRAINING) -> list[Curve]:
        """How good each exit is at a step of a rollout, on up to `most` held-out tokens."""
        judged = judge(self._heads, self._words, self._features, self._held_out[:most], step)
        return [curve_of(h.spec.layer, kl, j) for h, (kl, j) in zip(self._heads, judged, strict=True)]

    def _add_gradients(self, step: int) -> float:
        """Those of the mean KL of all heads."""
        rows = self._rows(step)
        total = 0.0
        for part in chunks(np.sort(rows), self._words):
            top, log_sum = gather(self._features.top, part), torch.from_numpy(self._features.log_sum[part])
            target = target_of(self._words, top, log_sum)
            for head in self._heads:
                inputs = inputs_of(head, self._features, part)
                total += kl_backward(head, inputs, target, 1 / len(rows), self._settings.rollout)
        return total / len(rows) / len(self._heads)

    def _rows(self, step: int) -> Rows:
        epoch, number = divmod(step, self._per_epoch)
        if epoch != self._epoch:
            self._epoch = epoch
            self._order = shuffled(self._train, self._window, [self._settings.train_seed, epoch])
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
def judge(
    heads: Sequence[Head], words: Words, features: Features, rows: Rows, step: int = 1
) -> list[tuple[float, Judged]]:
    """Mean KL of each head at `rows` (ascending), and its confidence and agreement there, at a step of a rollout; in
    float32."""
    totals = [0.0] * len(heads)
    confidence, agrees = np.zeros((len(heads), len(rows)), np.float32), np.zeros((len(heads), len(rows)), bool)
    ids = torch.cat((words.ids, torch.tensor([-1])))
    done = 0
    for part in chunks(rows, words):
        target = target_of(words, gather(features.top, part), torch.from_numpy(features.log_sum[part]))
        choice, span = torch.from_numpy(features.choice[part]), slice(done, done + len(part))
        for k, head in enumerate(heads):
            log_probs = head.logits(inputs_of(head, features, part), step).log_softmax(-1)
            totals[k] += float((target.negative_entropy - (target.probs * log_probs).sum(-1)).sum())
            best, winner = log_probs.max(-1)
            confidence[k, span] = best.exp().where(winner < len(words.ids), 0.0).numpy()
            agrees[k, span] = (ids[winner] == choice).numpy()
        done += len(part)
    return [(total / len(rows), Judged(confidence[k], agrees[k])) for k, total in enumerate(totals)]


def gather(rows: Half, which: Rows) -> Tensor:
    """Some rows of a file of hidden states, in float32."""
    return torch.from_numpy(rows[which].astype(np.float32))


def inputs_of(head: Head, features: Features, rows: Rows) -> Inputs:
    """What a head reads at `rows` (ascending)."""
    hidden = gather(features.layers[head.spec.layer], rows)
    if head.spec.past == "none":
        return Inputs(hidden)
    follows = np.diff(rows, prepend=-2) == 1
    return Inputs(hidden, torch.from_numpy(features.past(rows)), torch.from_numpy(follows))


def shuffled(rows: Rows, window: int, seed: Sequence[int]) -> Rows:
    """`rows` (ascending) in a new order, in which up to `window` that follow one another stay together."""
    order = np.random.default_rng(seed)
    if window == 1:
        return order.permutation(rows)
    places = np.arange(len(rows))
    starts = np.maximum.accumulate(np.where(np.diff(rows, prepend=-2) != 1, places, 0))
    windows = np.split(rows, np.flatnonzero((places - starts) % window == 0)[1:])
    return np.concatenate([windows[i] for i in order.permutation(len(windows))])


def chunks(rows: Rows, words: Words) -> Iterator[Rows]:
    """`rows` in parts whose logits fit in memory."""
    size = max(1, LOGITS // len(words.ids))
    for start in range(0, len(rows), size):
        yield rows[start : start + size]
