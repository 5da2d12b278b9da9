"""Training exit heads on stored features: AdamW, cosine schedule, checkpoints, early stop on held-out data.

Heads of several exits learn side by side from the same tokens, since the top's distribution is the same for all. They
do not touch one another, and each keeps what was best for it.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from offramp.tune.curves import Curve, Judged, curve_of
from offramp.tune.features import Features, Half
from offramp.tune.heads import Head, Inputs, Words
from offramp.tune.loss import kl_backward, target_of
from offramp.tune.report import Meter
from offramp.tune.settings import TrainSettings

Rows = npt.NDArray[np.int64]

WARM_UP = 0.05
"""The share of steps over which the learning rate rises."""

MAX_NORM = 1.0
"""Gradients of a head are scaled down to this norm."""

LOGITS = 2**21
"""Logits that are held at once: few enough to stay in cache."""

WINDOW = 32
"""Tokens in a row that are learnt from together where heads read the past."""

JUDGED_IN_TRAINING = 4096
"""Held-out tokens of an evaluation while training goes on."""


@dataclass
class Progress:
    """What a checkpoint holds besides tensors: steps done, held-out KL of every evaluation, and where each was best."""

    step: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    best: dict[int, float] = field(default_factory=dict)
    waited: int = 0


class Trainer:
    """Trains heads.

    Args:
        heads: one for each exit, all over the same `words`.
        features: what they learn from.
        settings: how.
    """

    def __init__(self, heads: Sequence[Head], words: Words, features: Features, settings: TrainSettings) -> None:
        self._heads, self._words, self._features, self._settings = heads, words, features, settings
        self._train, self._held_out = features.rows(held_out=False), features.rows(held_out=True)
        self._window = WINDOW if any(head.spec.past == "deep" for head in heads) else 1
        self.batch = min(settings.batch_tokens, len(self._train))
        self._per_epoch = len(self._train) // self.batch
        self.steps = settings.epochs * self._per_epoch
        self._optimizer = torch.optim.AdamW(self._groups(), fused=True)
        self._kept = [{name: t.detach().clone() for name, t in head.tensors.items()} for head in heads]
        self.progress = Progress()

    def run(self, checkpoint: Path, meter: Meter) -> None:
        """Train to the end, or go on from `checkpoint` if it is there; heads end as what was best on held-out data."""
        if checkpoint.is_file():
            self._load(checkpoint)
        progress, every = self.progress, max(1, self.steps // self._settings.evaluations)
        order, epoch = np.zeros(0, dtype=np.int64), -1
        meter(progress.step * self.batch)
        while progress.step < self.steps and progress.waited < self._settings.patience:
            if progress.step // self._per_epoch != epoch:
                epoch = progress.step // self._per_epoch
                order = shuffled(self._train, self._window, [self._settings.train_seed, epoch])
            at = progress.step % self._per_epoch * self.batch
            loss = self._step(order[at : at + self.batch])
            progress.step += 1
            meter(progress.step * self.batch, f"KL {loss:.3f}")
            if progress.step % every == 0 or progress.step == self.steps:
                self._evaluate()
                self._save(checkpoint)
        for head, kept in zip(self._heads, self._kept, strict=True):
            for name, tensor in head.tensors.items():
                tensor.detach().copy_(kept[name])

    def curves(self, step: int = 1, most: int = 8 * JUDGED_IN_TRAINING) -> list[Curve]:
        """How good each exit is at a step of a rollout, on up to `most` held-out tokens."""
        judged = judge(self._heads, self._words, self._features, self._held_out[:most], step)
        return [curve_of(h.spec.layer, kl, j) for h, (kl, j) in zip(self._heads, judged, strict=True)]

    def _step(self, rows: Rows) -> float:
        """One step of all heads; returns their mean KL."""
        rate = self._settings.lr * schedule(self.progress.step, self.steps)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.zero_grad()
        total = 0.0
        for part in chunks(np.sort(rows), self._words):
            top, log_sum = gather(self._features.top, part), torch.from_numpy(self._features.log_sum[part])
            target = target_of(self._words, top, log_sum)
            for head in self._heads:
                inputs = inputs_of(head, self._features, part)
                total += kl_backward(head, inputs, target, 1 / len(rows), self._settings.rollout)
        for head in self._heads:
            torch.nn.utils.clip_grad_norm_(head.tensors.values(), MAX_NORM)
        self._optimizer.step()
        return total / len(rows) / len(self._heads)

    def _evaluate(self) -> None:
        """Look at held-out data; keep each head that has become better."""
        progress, rows = self.progress, self._held_out[:JUDGED_IN_TRAINING]
        entry: dict[str, Any] = {"step": progress.step, "tokens": progress.step * self.batch, "exits": {}}
        progress.waited += 1
        found = judge(self._heads, self._words, self._features, rows)
        for number, (head, (kl, judged)) in enumerate(zip(self._heads, found, strict=True)):
            layer = head.spec.layer
            entry["exits"][str(layer)] = {"kl": kl, "agreement": float(judged.agrees.mean())}
            if kl < progress.best.get(layer, math.inf):
                progress.best[layer], progress.waited = kl, 0
                self._kept[number] = {name: t.detach().clone() for name, t in head.tensors.items()}
        progress.history.append(entry)

    def _groups(self) -> list[dict[str, Any]]:
        """Matrices decay, norms and biases and "other" do not."""
        tensors = [(name, t) for head in self._heads for name, t in head.tensors.items()]
        decays = [t for name, t in tensors if t.dim() > 1 and not name.startswith("other")]
        others = [t for name, t in tensors if t.dim() == 1 or name.startswith("other")]
        groups = [(decays, self._settings.weight_decay), (others, 0.0)]
        return [{"params": params, "weight_decay": decay} for params, decay in groups if params]

    def _save(self, path: Path) -> None:
        state = {
            "progress": vars(self.progress),
            "heads": [{name: t.detach() for name, t in head.tensors.items()} for head in self._heads],
            "kept": self._kept,
            "optimizer": self._optimizer.state_dict(),
        }
        draft = path.with_name(f"{path.name}.{os.getpid()}")
        torch.save(state, draft)
        os.replace(draft, path)

    def _load(self, path: Path) -> None:
        state = torch.load(path, weights_only=True)
        self.progress = Progress(**state["progress"])
        self._kept = state["kept"]
        for head, tensors in zip(self._heads, state["heads"], strict=True):
            for name, tensor in head.tensors.items():
                tensor.detach().copy_(tensors[name])
        self._optimizer.load_state_dict(state["optimizer"])


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


def schedule(step: int, steps: int) -> float:
    """The learning rate as a share of its peak: a linear rise, then a cosine to 0 (Loshchilov and Hutter 2017)."""
    warm = max(1, round(WARM_UP * steps))
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))
