"""Routers: classifiers that tell from the hidden state alone whether an exit would choose as the top does.

A second stage, after the heads (CALM, Schuster et al. 2022): the label of a token is whether the finished head agrees
with the top, and both labels weigh the same in the loss, however rare one is. A router reads the normed hidden state,
without the adapter, and costs next to nothing beside a head.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from offramp.executors.torch.heads import make_classifier
from offramp.exits.pack import Classifier
from offramp.tune.curves import Judged
from offramp.tune.features import Features
from offramp.tune.heads import Head, Words
from offramp.tune.loop import schedule
from offramp.tune.report import Meter
from offramp.tune.settings import RouterSettings
from offramp.tune.train import Rows, inputs_of, judge, lessons_of

BATCH = 1024
PART = 8192


class Router(NamedTuple):
    """A trained router: its tensors by their names in a pack, its loss on held-out data, what leaving by it gives."""

    tensors: dict[str, Tensor]
    loss: float
    judged: Judged


def train_router(
    head: Head, words: Words, features: Features, settings: RouterSettings, held_out: int, meter: Meter
) -> Router:
    """Train the router of one exit; the best epoch on held-out data is kept. `held_out`: tokens judged at most."""
    train, held = features.rows(held_out=False), features.rows(held_out=True)[:held_out]
    ((_, taught),) = judge([head], words, lessons_of([head], words, features, train))
    ((_, judged),) = judge([head], words, lessons_of([head], words, features, held))
    labels = taught.agrees
    classify = _new(settings, words.rows.shape[1], head.spec.layer)
    best, kept = float("inf"), classify
    steps_per_epoch = -(-len(train) // BATCH)
    steps = settings.router_epochs * steps_per_epoch
    optimizer = torch.optim.AdamW(classify.values(), lr=settings.router_lr, weight_decay=0.01)
    weights = _balance(labels)
    for epoch in range(settings.router_epochs):
        order = np.random.default_rng(epoch).permutation(len(train))
        for number in range(steps_per_epoch):
            part = np.sort(order[number * BATCH : (number + 1) * BATCH])
            for group in optimizer.param_groups:
                group["lr"] = settings.router_lr * schedule(epoch * steps_per_epoch + number, steps)
            logits = _logits(head, classify, settings.router, features, train[part])
            loss = _loss(logits, labels[part], weights)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            meter(min(meter.done + len(part), settings.router_epochs * len(train)), f"loss {float(loss.detach()):.3f}")
        with torch.no_grad():
            score = float(_loss(_logits(head, classify, settings.router, features, held), judged.agrees, weights))
        if score < best:
            best, kept = score, {name: t.detach().clone() for name, t in classify.items()}
    with torch.no_grad():
        confidence = torch.sigmoid(_logits(head, kept, settings.router, features, held)).numpy()
    # Where "other" wins there is nothing to choose, whatever the router says.
    confidence = np.where(judged.confidence > 0, confidence, np.float32(0))
    return Router(kept, best, Judged(confidence, judged.agrees))


def _new(settings: RouterSettings, d: int, seed: int) -> dict[str, Tensor]:
    if settings.router == "linear":
        tensors = {"classifier.weight": torch.zeros(1, d), "classifier.bias": torch.zeros(1)}
    else:
        random = torch.Generator().manual_seed(seed)
        size = settings.router_size
        tensors = {
            "classifier.down.weight": torch.randn(size, d, generator=random) / d**0.5,
            "classifier.down.bias": torch.zeros(size),
            "classifier.up.weight": torch.zeros(1, size),
            "classifier.up.bias": torch.zeros(1),
        }
    return {name: t.requires_grad_() for name, t in tensors.items()}


def _logits(
    head: Head, tensors: dict[str, Tensor], kind: Classifier, features: Features, rows: Rows | Sequence[int]
) -> Tensor:
    classify = make_classifier(kind, tensors.__getitem__)
    assert classify is not None
    rows = np.asarray(rows, dtype=np.int64)
    parts = [inputs_of(head, features, rows[i : i + PART]) for i in range(0, len(rows), PART)]
    return torch.cat([classify(head.normed(part).detach()).squeeze(-1) for part in parts])


def _balance(labels: np.ndarray) -> tuple[float, float]:
    """Weights of disagreement and agreement, so that both count half in all."""
    share = min(max(float(labels.mean()), 1e-3), 1 - 1e-3)
    return 0.5 / (1 - share), 0.5 / share


def _loss(logits: Tensor, labels: np.ndarray, weights: tuple[float, float]) -> Tensor:
    target = torch.from_numpy(labels.astype(np.float32))
    weight = torch.where(target > 0, weights[1], weights[0])
    return F.binary_cross_entropy_with_logits(logits, target, weight)
