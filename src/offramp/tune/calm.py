"""Training a T5 for its exits, which share its final norm and its LM head (CALM, Schuster et al. 2022).

First the model learns, from the loss behind every decoder layer. Then it is frozen, and a classifier at each exit
learns whether the exit would choose what the top chooses.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from time import monotonic
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from offramp.tune.calm_loss import balanced_loss, exit_weights, geometric_loss, head_loss
from offramp.tune.loop import Loop
from offramp.tune.pairs import Ints, PairBatch, Pairs, deal_pairs, pair_batch
from offramp.tune.report import Meter
from offramp.tune.settings import CalmSettings, TrainSettings
from offramp.tune.t5 import DenseT5

JUDGED = 16384
"""Held-out target tokens that are looked at while training, at most."""

AT_ONCE = 4096
"""Target tokens that are judged side by side."""

MEASURED = 20
"""From so many steps on, time tells how many there will be."""

TABLES = 5.0
"""Embeddings and position biases, whose first weights are large, learn so many times as fast."""

BETAS = (0.9, 0.98)
"""AdamW's, for a training of a few thousand steps."""


class PairTrainer(Loop):
    """What both stages have in common: steps of pairs, and a loss that is read one step late, when it is there."""

    def __init__(
        self, parts: Sequence[dict[str, Tensor]], train: TrainSettings, model: DenseT5, pairs: Pairs, dealt: list[Ints]
    ) -> None:
        self._model, self._pairs, self._dealt = model, pairs, dealt
        super().__init__(parts, train)
        self._device = model.head.device
        lengths = pairs.targets.lengths_of(pairs.target_of)
        self._tokens = np.cumsum([0, *(int(lengths[numbers].sum()) for numbers in dealt)])
        self._last: Tensor | None = None

    @property
    def steps(self) -> int:
        """All steps."""
        return len(self._dealt)

    def tokens(self, step: int) -> int:
        """How many target tokens so many steps take."""
        return int(self._tokens[step])

    def _learn(self, batch: PairBatch) -> Tensor:
        """The mean loss of a batch."""
        raise NotImplementedError

    def _add_gradients(self, step: int) -> float:
        """The loss that is returned is that of the step before: to read this one's would be to wait for it."""
        loss = self._learn(pair_batch(self._pairs, self._dealt[step], self._device))
        loss.backward()  # type: ignore[no-untyped-call]
        before, self._last = self._last, loss.detach()
        return float(self._last if before is None else before)


class CalmTrainer(PairTrainer):
    """Trains a T5 from the loss behind every decoder layer.

    Args:
        model: what is trained; its weights require gradients.
        pairs: what it learns from, and is judged on.
        train, settings: how.
    """

    def __init__(self, model: DenseT5, pairs: Pairs, train: TrainSettings, settings: CalmSettings) -> None:
        learnt = pairs.numbers(held_out=False)
        dealt = deal_pairs(pairs, learnt, train.batch_tokens, train.epochs, train.train_seed)
        super().__init__([dict(model.weights)], train, model, pairs, dealt)
        self._weights = exit_weights(settings.exit_weights, model.spec.num_layers)
        self._held_out = first_pairs(pairs, JUDGED)
        self._limit = None if settings.minutes is None else 60 * settings.minutes
        self._planned, self._began = len(dealt), 0.0
        self._meter: Meter | None = None

    @property
    def steps(self) -> int:
        """All steps; where time is limited, as many as fit into it by what they have taken so far."""
        return self._planned

    def run(self, checkpoint: Any, meter: Meter) -> None:
        """See `Loop.run`."""
        self._meter = meter
        super().run(checkpoint, meter)

    def _learn(self, batch: PairBatch) -> Tensor:
        model = self._model
        encoded = model.encode(batch.source, batch.source_lengths)
        states = model.decode(batch.given, encoded, range(1, model.spec.num_layers + 1))
        loss = torch.zeros((), device=self._device)
        for weight, hidden in zip(self._weights, states, strict=True):
            met = model.states(hidden.flatten(0, 1).index_select(0, batch.rows))
            loss = loss + weight * head_loss(met, model.head, batch.next)
        return loss / len(batch.next)

    def _add_gradients(self, step: int) -> float:
        self._plan(step)
        if self._model.dropout:
            torch.manual_seed(self._settings.train_seed * 2**31 + step)
        return super()._add_gradients(step)

    def _plan(self, step: int) -> None:
        """Say how many steps there will be."""
        now = monotonic()
        self.progress.seconds += now - self._began if self._began else 0.0
        self._began = now
        seconds, limit = self.progress.seconds, self._limit
        if limit is not None and step >= MEASURED:
            self._planned = min(len(self._dealt), step + 1 + max(0, int(step * (limit / seconds - 1))))
            if self._meter is not None:
                self._meter.total = self.tokens(self._planned)

    def _due(self) -> bool:
        if self._limit is None:
            return super()._due()
        share = self.progress.step / self.steps
        return int(share * self._settings.evaluations) > len(self.progress.history) or share == 1

    def _groups(self) -> list[dict[str, Any]]:
        """Embeddings and position biases apart, and queries: T5's are smaller than others' by head_dim^-0.5."""
        named: dict[str, list[Tensor]] = {"matrices": [], "queries": [], "tables": [], "norms": []}
        for name, tensor in self._parts[0].items():
            kind = "queries" if name.endswith(".q.weight") else "tables" if is_table(name) else "matrices"
            named["norms" if tensor.dim() == 1 else kind].append(tensor)
        scales = {"queries": self._model.spec.head_dim**-0.5, "tables": TABLES}
        decay = self._settings.weight_decay
        return [
            {
                "params": tensors,
                "weight_decay": decay if kind in ("matrices", "queries") else 0.0,
                "scale": scales.get(kind, 1.0),
                "betas": BETAS,
            }
            for kind, tensors in named.items()
        ]

    @torch.no_grad()
    def _look(self) -> tuple[dict[str, Any], list[float]]:
        """Cross-entropy of the top and of each exit, and how often an exit chooses what the top does; the score is the
        loss that is trained."""
        depth, count = self._model.spec.num_layers, 0
        losses, agree, right = np.zeros(depth), np.zeros(depth), 0
        for batch in batches_of(self._pairs, self._held_out, self._device):
            states = answer_states(self._model, batch)
            logits = [self._model.logits(hidden).float() for hidden in states]
            top = logits[-1].argmax(-1)
            losses += [float(F.cross_entropy(x, batch.next, reduction="sum")) for x in logits]
            agree += [int((x.argmax(-1) == top).sum()) for x in logits]
            right += int((top == batch.next).sum())
            count += len(top)
        losses, agree = losses / count, agree / count
        exits = {i + 1: {"loss": float(losses[i]), "agreement": float(agree[i])} for i in range(depth - 1)}
        entry = {"top": float(losses[-1]), "right": right / count, "exits": exits}
        return entry, [float(np.dot(self._weights, losses))]


class ClassifierTrainer(PairTrainer):
    """Trains classifiers on a model that is frozen; each keeps what was best for it.

    Args:
        classifiers: `classifier.weight` [1, width] and `classifier.bias` [1] for each of `layers`.
        model, pairs, settings: see `CalmTrainer`.
    """

    def __init__(
        self,
        classifiers: Sequence[dict[str, Tensor]],
        layers: Sequence[int],
        model: DenseT5,
        pairs: Pairs,
        train: TrainSettings,
        settings: CalmSettings,
    ) -> None:
        seed = train.train_seed + 1
        learnt = pairs.numbers(held_out=False)
        dealt = deal_pairs(pairs, learnt, train.batch_tokens, 1, seed)
        while len(dealt) < settings.classifier_steps:
            dealt += dealt
        own = replace(train, lr=settings.classifier_lr)
        super().__init__(classifiers, own, model, pairs, dealt[: settings.classifier_steps])
        self._layers, self._held_out = layers, first_pairs(pairs, JUDGED)
        self._loss = geometric_loss if settings.classifier == "geometric" else balanced_loss

    def _learn(self, batch: PairBatch) -> Tensor:
        x, agrees = self._lesson(batch)
        return self._loss(classify(self._parts, x), agrees).mean()

    @torch.no_grad()
    def _look(self) -> tuple[dict[str, Any], list[float]]:
        parts, counts = [], []
        for batch in batches_of(self._pairs, self._held_out, self._device):
            x, agrees = self._lesson(batch)
            parts.append(self._loss(classify(self._parts, x), agrees))
            counts.append(len(batch.next))
        mean = torch.stack(parts).T @ torch.tensor(counts, dtype=torch.float32, device=self._device) / sum(counts)
        losses = mean.tolist()
        return {"classifiers": dict(zip(self._layers, losses, strict=True))}, losses

    @torch.no_grad()
    def _lesson(self, batch: PairBatch) -> tuple[Tensor, Tensor]:
        """What classifiers read [exits, tokens, width], and whether each exit agrees with the top [exits, tokens]."""
        states = answer_states(self._model, batch)
        some = [states[layer - 1] for layer in self._layers]
        choices = [self._model.logits(hidden).argmax(-1) for hidden in (*some, states[-1])]
        x = torch.stack([self._model.normed(hidden) for hidden in some])
        return x, torch.stack(choices[:-1]) == choices[-1]


def new_classifiers(layers: Sequence[int], width: int, device: torch.device) -> list[dict[str, Tensor]]:
    """One for each exit, which at first knows nothing."""
    sizes = {"classifier.weight": (1, width), "classifier.bias": (1,)}
    return [
        {name: torch.zeros(size, device=device, requires_grad=True) for name, size in sizes.items()} for _ in layers
    ]


def classify(classifiers: Sequence[Any], x: Tensor) -> Tensor:
    """The logits of all classifiers [exits, tokens] for what they read [exits, tokens, width]."""
    weight = torch.stack([c["classifier.weight"][0] for c in classifiers])
    bias = torch.cat([c["classifier.bias"] for c in classifiers])
    return torch.einsum("etd,ed->et", x, weight) + bias[:, None]


def answer_states(model: DenseT5, batch: PairBatch) -> list[Tensor]:
    """Hidden states [target tokens, width] behind every decoder layer, where target tokens are chosen."""
    encoded = model.encode(batch.source, batch.source_lengths)
    states = model.decode(batch.given, encoded, range(1, model.spec.num_layers + 1))
    return [hidden.flatten(0, 1).index_select(0, batch.rows) for hidden in states]


def first_pairs(pairs: Pairs, tokens: int) -> Ints:
    """The first pairs that are held out, up to so many target tokens, at least one."""
    numbers = pairs.numbers(held_out=True)
    ends = np.cumsum(pairs.targets.lengths_of(pairs.target_of[numbers]))
    return numbers[: max(1, int(np.searchsorted(ends, tokens, side="right")))]


def batches_of(pairs: Pairs, numbers: Ints, device: torch.device) -> Iterator[PairBatch]:
    """The pairs `numbers`, those of about the same length side by side."""
    lengths = pairs.targets.lengths_of(pairs.target_of[numbers])
    order = np.argsort(lengths, kind="stable")
    ends = np.cumsum(lengths[order])
    for part in np.split(numbers[order], np.searchsorted(ends, np.arange(AT_ONCE, int(ends[-1]), AT_ONCE))):
        if len(part):
            yield pair_batch(pairs, part, device)


def is_table(name: str) -> bool:
    """Whether a tensor is looked up and not multiplied by alone."""
    return name == "shared.weight" or "relative_attention_bias" in name
