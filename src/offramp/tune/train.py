"""Training exit heads on stored features.

Heads of several exits learn side by side from the same tokens, since the top's distribution is the same for all. They
do not touch one another, and each keeps what was best for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from offramp.tune.curves import Curve, Judged, curve_of
from offramp.tune.features import Features, Half
from offramp.tune.heads import Head, Inputs, Words
from offramp.tune.loop import Loop
from offramp.tune.loss import Target, kl_backward, target_of
from offramp.tune.samples import JUDGED
from offramp.tune.settings import TrainSettings
from offramp.tune.sizes import sizes

Rows = npt.NDArray[np.int64]

WINDOW = 32
"""Tokens in a row that are learnt from together where heads read the past."""

JUDGED_IN_TRAINING = 4096
"""Held-out tokens of an evaluation while training goes on."""


class Lesson(NamedTuple):
    """What heads read at some rows, each for itself, and what the top says there: its distribution and its choice
    [rows]."""

    inputs: Sequence[Inputs]
    target: Target
    choice: Tensor


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

    def _add_gradients(self, step: int) -> float:
        """Those of the mean KL of all heads."""
        rows = self._rows(step)
        total = 0.0
        for inputs, target, _ in lessons_of(self._heads, self._words, self._features, np.sort(rows)):
            for head, read in zip(self._heads, inputs, strict=True):
                total += kl_backward(head, read, target, 1 / len(rows), self._settings.rollout)
        return total / len(rows) / len(self._heads)

    def _rows(self, step: int) -> Rows:
        epoch, number = divmod(step, self._per_epoch)
        if epoch != self._epoch:
            self._epoch = epoch
            self._order = shuffled(self._train, self._window, [self._settings.train_seed, epoch])
        return self._order[number * self.batch : (number + 1) * self.batch]

    def _look(self) -> tuple[dict[str, Any], list[float]]:
        """KL and agreement of each head; the KL is its score."""
        rows = self._held_out[:JUDGED_IN_TRAINING]
        found = judge(self._heads, self._words, lessons_of(self._heads, self._words, self._features, rows))
        return judged_entry(self._heads, found), [kl for kl, _ in found]


def judged_entry(heads: Sequence[Head], found: Sequence[tuple[float, Judged]]) -> dict[str, Any]:
    """What a history keeps of heads that were judged."""
    pairs = zip(heads, found, strict=True)
    return {
        "exits": {str(h.spec.layer): {"kl": kl, "agreement": float(j.agrees.mean())} for h, (kl, j) in pairs},
    }


@torch.no_grad()
def judge(heads: Sequence[Head], words: Words, lessons: Iterable[Lesson], step: int = 1) -> list[tuple[float, Judged]]:
    """Mean KL of each head, and its confidence and agreement at every row, at a step of a rollout; in float32."""
    totals, count = [0.0] * len(heads), 0
    confidence: list[list[Tensor]] = [[] for _ in heads]
    agrees: list[list[Tensor]] = [[] for _ in heads]
    ids = torch.cat((words.ids, words.ids.new_tensor([-1])))
    for inputs, target, choice in lessons:
        count += len(choice)
        for k, head in enumerate(heads):
            log_probs = head.logits(inputs[k], step).log_softmax(-1)
            totals[k] += float((target.negative_entropy - (target.probs * log_probs).sum(-1)).sum())
            best, winner = log_probs.max(-1)
            confidence[k].append(best.exp().where(winner < len(words.ids), 0.0))
            agrees[k].append(ids[winner] == choice)
    judged = [
        Judged(*(torch.cat(part).cpu().numpy() for part in pair)) for pair in zip(confidence, agrees, strict=True)
    ]
    return [(total / count, found) for total, found in zip(totals, judged, strict=True)]


def curves_of(heads: Sequence[Head], words: Words, features: Features, step: int = 1) -> list[Curve]:
    """How good each exit is at a step of a rollout, on held-out tokens: from step 2 on, behind tokens that left there
    too."""
    rows = features.rows(held_out=True)[:JUDGED]
    judged = judge(heads, words, lessons_of(heads, words, features, rows), step)
    return [curve_of(head.spec.layer, kl, found) for head, (kl, found) in zip(heads, judged, strict=True)]


def lessons_of(heads: Sequence[Head], words: Words, features: Features, rows: Rows) -> Iterator[Lesson]:
    """What heads read and are to say at `rows` (ascending), in parts whose logits fit in memory."""
    size, device = rows_at_once(words), words.device
    for start in range(0, len(rows), size):
        part = rows[start : start + size]
        log_sum = torch.from_numpy(features.log_sum[part]).to(device)
        target = target_of(words, gather(features.top, part, device), log_sum)
        inputs = [inputs_of(head, features, part) for head in heads]
        yield Lesson(inputs, target, torch.from_numpy(features.choice[part]).to(device))


def rows_at_once(words: Words) -> int:
    """Rows whose logits are held at once."""
    return max(1, sizes(words.device).exit_logits // len(words.ids))


def gather(rows: Half, which: Rows, device: torch.device) -> Tensor:
    """Some rows of a file of hidden states, in float32."""
    return torch.from_numpy(rows[which].astype(np.float32)).to(device)


def inputs_of(head: Head, features: Features, rows: Rows) -> Inputs:
    """What a head reads at `rows` (ascending)."""
    device = head.words.device
    hidden = gather(features.layers[head.spec.layer], rows, device)
    if head.spec.past == "none":
        return Inputs(hidden)
    follows = np.diff(rows, prepend=-2) == 1
    return Inputs(hidden, torch.from_numpy(features.past(rows)).to(device), torch.from_numpy(follows).to(device))


def shuffled(rows: Rows, window: int, seed: Sequence[int]) -> Rows:
    """`rows` (ascending) in a new order, in which up to `window` that follow one another stay together."""
    order = np.random.default_rng(seed)
    if window == 1:
        return order.permutation(rows)
    places = np.arange(len(rows))
    starts = np.maximum.accumulate(np.where(np.diff(rows, prepend=-2) != 1, places, 0))
    windows = np.split(rows, np.flatnonzero((places - starts) % window == 0)[1:])
    return np.concatenate([windows[i] for i in order.permutation(len(windows))])
