"""Training a trunk for its exits (LayerSkip, Elhoushi et al. 2024): a trunk adapter and exit heads, side by side.

The loss of a token is the top's, and a share of that of each exit. The top learns the data, or to stay as it was: its
target is the answer's token, or the original trunk's distribution (self-distillation), or a mixture. Exits learn what
the top says: KL(top || exit) over the words and "other". In that the top is fixed: exits come to it and not it to them.

In a share of the sequences tokens leave where an exit is sure of them, and the layers above get their K and V as `fill`
makes them. There only the tokens that stay are learnt from: so they learn to read what was filled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from torch import Tensor

from offramp.tune.batches import Batch, batches, deal
from offramp.tune.dense import DenseTrunk, Skip, skip_none
from offramp.tune.features import Features, Half, half
from offramp.tune.heads import Head, Inputs
from offramp.tune.leaving import Leaving
from offramp.tune.loop import Loop
from offramp.tune.loss import kl_backward, target_of
from offramp.tune.samples import Sample, first_samples
from offramp.tune.settings import Curriculum, TrainSettings, TrunkSettings
from offramp.tune.top import TopHead
from offramp.tune.train import JUDGED_IN_TRAINING, chunks, gather, judge, judged_entry


@dataclass(frozen=True)
class Lessons:
    """What a trunk learns from.

    `original`: final hidden states of the original trunk for all tokens of `samples`, [tokens, hidden_size], and the
    `share` that they have in what the top learns; None and 0 where nothing is distilled from it.
    """

    samples: Sequence[Sample]
    original: Half | None = None
    share: float = 0.0


class TrunkTrainer(Loop):
    """Trains a trunk adapter and exit heads.

    Args:
        trunk: the model, with the factors that are trained.
        top: its own head.
        heads: one for each exit, all over the same words.
        lessons: what they learn from, and are judged on.
        train, settings: how.
    """

    def __init__(
        self,
        trunk: DenseTrunk,
        top: TopHead,
        heads: Sequence[Head],
        lessons: Lessons,
        train: TrainSettings,
        settings: TrunkSettings,
    ) -> None:
        named = {f"exits.{head.spec.layer}.{name}": t for head in heads for name, t in head.tensors.items()}
        super().__init__([{**trunk.factors, **named}], train)
        self._trunk, self._top, self._heads, self._words = trunk, top, heads, heads[0].words
        self._lessons, self._trunk_settings = lessons, settings
        self._taps = [*(head.spec.layer for head in heads), trunk.depth]
        samples = lessons.samples
        self._starts = [0, *accumulate(len(s.token_ids) for s in samples)]
        learnt, held_out = ([i for i, s in enumerate(samples) if s.held_out == apart] for apart in (False, True))
        self._held_out = held_out[: len(first_samples([samples[i] for i in held_out], JUDGED_IN_TRAINING))]
        self._dealt = deal(samples, learnt, train.batch_tokens, train.epochs, train.train_seed)
        self._tokens = [0, *accumulate(sum(len(samples[i].token_ids) for i in step) for step in self._dealt)]

    @property
    def steps(self) -> int:
        """All steps."""
        return len(self._dealt)

    def tokens(self, step: int) -> int:
        """How many tokens, prompts included, so many steps take."""
        return self._tokens[step]

    def _add_gradients(self, step: int) -> float:
        """Those of the mean loss of the step's answer tokens."""
        numbers, settings = self._dealt[step], self._trunk_settings
        count = sum(len(self._lessons.samples[i].scored) for i in numbers)
        active = active_exits(settings.curriculum, step, self.steps, len(self._heads))
        total = 0.0
        for batch in batches(self._lessons.samples, numbers):
            seed = [self._settings.train_seed, step, batch.numbers[0]]
            skip = drop_layers(settings.layer_dropout, self._trunk.depth, len(batch.numbers), seed)
            leaving = Leaving(self._heads, batch, settings.filled, seed)
            total += self._learn(batch, active, skip, leaving, 1 / count)
        return total / count

    def _learn(self, batch: Batch, active: Sequence[int], skip: Skip, leaving: Leaving, scale: float) -> float:
        """Add the gradients of `scale` times the summed loss of a batch; returns the summed loss."""
        found = self._trunk.run(batch.ids, self._taps, skip, leaving)
        batch = leaving.stayed(batch)
        *taps, final = (h.flatten(0, 1)[batch.rows] for h in found)
        states = self._top.states(final)
        reading = self._top.read(states.detach())
        target, floor = self._target(batch)
        total = float((reading.log_sum - (states.detach() * target).sum(-1) - floor).sum())
        weight = self._trunk_settings.exit_weight
        leaves = {k: taps[k].detach().requires_grad_() for k in active}
        for rows in chunks(np.arange(len(batch.rows)), self._words):
            says = target_of(self._words, final.detach()[rows], reading.log_sum[rows])
            for k, leaf in leaves.items():
                total += weight * kl_backward(self._heads[k], Inputs(leaf[rows]), says, weight * scale)
        torch.autograd.backward(
            [states, *(taps[k] for k in active)],
            [(reading.mean - target) * scale, *(leaf.grad for leaf in leaves.values())],
        )
        return total

    def _target(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Mean rows of the LM head under the top's target [rows, hidden_size], and the least loss there can be [rows]
        (that of a token is 0)."""
        tokens = self._top.matrix[batch.next]
        if self._lessons.original is None:
            return tokens, torch.zeros(len(tokens))
        share, width = self._lessons.share, batch.ids.shape[1]
        starts = torch.tensor([self._starts[i] for i in batch.numbers])
        places = starts[batch.rows // width] + batch.rows % width
        states = self._top.states(gather(self._lessons.original, places.numpy()))
        reading = self._top.read(states)
        entropy = reading.log_sum - (states * reading.mean).sum(-1)
        return torch.lerp(tokens, reading.mean, share), share * entropy

    @torch.no_grad()
    def _look(self) -> tuple[dict[str, Any], list[float]]:
        """The top's loss, KL and agreement of each exit; the score is the loss that is trained."""
        seen: list[list[Tensor]] = [[] for _ in self._taps]
        top, choices, sums = 0.0, [], []
        for batch in batches(self._lessons.samples, self._held_out):
            found = [h.flatten(0, 1)[batch.rows] for h in self._trunk.run(batch.ids, self._taps)]
            states = self._top.states(found[-1])
            reading = self._top.read(states)
            target, floor = self._target(batch)
            top += float((reading.log_sum - (states * target).sum(-1) - floor).sum())
            choices.append(reading.choice)
            sums.append(reading.log_sum)
            for kept, hidden in zip(seen, found, strict=True):
                kept.append(hidden)
        *layers, final = (half(torch.cat(kept).numpy()) for kept in seen)
        choice, log_sum = torch.cat(choices).numpy().astype(np.int32), torch.cat(sums).numpy()
        by_layer = {head.spec.layer: rows for head, rows in zip(self._heads, layers, strict=True)}
        features = Features(by_layer, final, choice, log_sum, self._lessons.samples)
        judged = judge(self._heads, self._words, features, np.arange(len(choice)))
        loss = top / len(choice)
        entry = {"top": loss, **judged_entry(self._heads, judged)}
        return entry, [loss + self._trunk_settings.exit_weight * sum(kl for kl, _ in judged)]


def active_exits(curriculum: Curriculum, step: int, steps: int, exits: int) -> list[int]:
    """The exits, from 0, that learn in a step; see `TrunkSettings`."""
    if curriculum == "rotational":
        return [step % exits]
    first = 0 if curriculum == "all" else max(0, exits - 1 - 2 * exits * step // steps)
    return list(range(first, exits))


def drop_layers(rate: float, depth: int, sequences: int, seed: Sequence[int]) -> Skip:
    """Which of so many `sequences` run a layer, drawn anew for each of `depth` layers.

    Layer l of L is skipped at `rate` (2^(l / (L - 1)) - 1), l from 0 (LayerSkip, section 4.1).
    """
    if not rate:
        return skip_none
    rates = rate * (2 ** (np.arange(depth) / max(1, depth - 1)) - 1)
    runs = np.random.default_rng(seed).random((depth, sequences)) >= rates[:, None]
    return lambda layer: None if runs[layer].all() else torch.from_numpy(np.flatnonzero(runs[layer]))
