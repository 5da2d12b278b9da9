"""Training a trunk for its exits (LayerSkip, Elhoushi et al. 2024): a trunk adapter and exit heads, side by side.

The loss of a token is the top's, and a share of that of each exit. The top learns the data, or to stay as it was: its
target is the answer's token, or the original trunk's distribution (self-distillation), or a mixture. Exits learn what
the top says: KL(top || exit) over the words and "other". In that the top is fixed: exits come to it and not it to them.

In a share of the sequences tokens leave where an exit is sure of them, and the layers above get their K and V as `fill`
makes them. There only the tokens that stay are learnt from: so they learn to read what was filled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from offramp.tune.batches import Batch, batches
from offramp.tune.dense import DenseTrunk, Skip, skip_none
from offramp.tune.heads import Head
from offramp.tune.leaving import Leaving
from offramp.tune.live import LiveTrainer, found_of
from offramp.tune.samples import Sample
from offramp.tune.settings import Curriculum, TrainSettings, TrunkSettings
from offramp.tune.sizes import CPU
from offramp.tune.top import Reading, TopHead


class TrunkTrainer(LiveTrainer):
    """Trains a trunk adapter and exit heads.

    Args:
        trunk: the model, with the factors that are trained.
        top: its own head.
        heads: one for each exit, all over the same words; none reads the past.
        samples: what they learn from, and are judged on.
        train, settings: how.
        distil: the share of what the top learns that is to stay as the original trunk was.
    """

    def __init__(
        self,
        trunk: DenseTrunk,
        top: TopHead,
        heads: Sequence[Head],
        samples: Sequence[Sample],
        train: TrainSettings,
        settings: TrunkSettings,
        distil: float,
    ) -> None:
        named = {f"exits.{head.spec.layer}.{name}": t for head in heads for name, t in head.tensors.items()}
        super().__init__(trunk, top, heads, samples, train, [{**trunk.factors, **named}])
        self._original, self._trunk_settings, self._distil = trunk.original(), settings, distil

    def _learn(self, step: int, batch: Batch, scale: float) -> float:
        settings = self._trunk_settings
        active = active_exits(settings.curriculum, step, self.steps, len(self._heads))
        seed = [self._settings.train_seed, step, batch.numbers[0]]
        skip = drop_layers(settings.layer_dropout, self._trunk.depth, len(batch.numbers), seed, self._trunk.device)
        leaving = Leaving(self._heads, batch, settings.filled, seed)
        states = self._trunk.run(batch.ids, self._taps, skip, leaving)
        batch = leaving.stayed(batch)
        found = found_of(batch, states)
        met = self._top.states(found.final)
        reading = self._top.read(met.detach())
        target, floor = self._target(batch)
        total = self._loss(met.detach(), reading, target, floor)
        # Exits learn from copies, so that all their gradients go back through the trunk at once.
        leaves = [tap.detach().requires_grad_(k in active) for k, tap in enumerate(found.taps)]
        weight = settings.exit_weight
        total += weight * self._teach(replace(found, taps=leaves), reading, active, weight * scale)
        torch.autograd.backward(
            [met, *(found.taps[k] for k in active)],
            [(reading.mean - target) * scale, *(leaves[k].grad for k in active)],
        )
        return total

    def _loss(self, met: Tensor, reading: Reading, target: Tensor, floor: Tensor) -> float:
        """The top's summed loss; see `_target`."""
        return float((reading.log_sum - (met * target).sum(-1) - floor).sum())

    @torch.no_grad()
    def _target(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Mean rows of the LM head under the top's target [rows, hidden_size], and the least loss there can be [rows]
        (that of a token is 0)."""
        tokens = self._top.matrix[batch.next]
        if not self._distil:
            return tokens, tokens.new_zeros(len(tokens))
        (final,) = self._original.run(batch.ids, self._taps[-1:])
        met = self._top.states(final.flatten(0, 1)[batch.rows])
        reading = self._top.read(met)
        entropy = reading.log_sum - (met * reading.mean).sum(-1)
        return torch.lerp(tokens, reading.mean, self._distil), self._distil * entropy

    @torch.no_grad()
    def _look(self) -> tuple[dict[str, Any], list[float]]:
        """The top's loss, KL and agreement of each exit; the score is the loss that is trained."""
        top, found, readings = 0.0, [], []
        for batch in batches(self._samples, self._held_out, self._trunk.device):
            found.append(found_of(batch, self._trunk.run(batch.ids, self._taps)))
            met = self._top.states(found[-1].final)
            readings.append(self._top.read(met))
            top += self._loss(met, readings[-1], *self._target(batch))
        entry, scores = self._judged(found, readings)
        loss = top / sum(len(f.final) for f in found)
        return {"top": loss, **entry}, [loss + self._trunk_settings.exit_weight * sum(scores)]


def active_exits(curriculum: Curriculum, step: int, steps: int, exits: int) -> list[int]:
    """The exits, from 0, that learn in a step; see `TrunkSettings`."""
    if curriculum == "rotational":
        return [step % exits]
    first = 0 if curriculum == "all" else max(0, exits - 1 - 2 * exits * step // steps)
    return list(range(first, exits))


def drop_layers(rate: float, depth: int, sequences: int, seed: Sequence[int], device: torch.device = CPU) -> Skip:
    """Which of so many `sequences` run a layer, drawn anew for each of `depth` layers.

    Layer l of L is skipped at `rate` (2^(l / (L - 1)) - 1), l from 0 (LayerSkip, section 4.1).
    """
    if not rate:
        return skip_none
    rates = rate * (2 ** (np.arange(depth) / max(1, depth - 1)) - 1)
    runs = np.random.default_rng(seed).random((depth, sequences)) >= rates[:, None]
    return lambda layer: None if runs[layer].all() else torch.from_numpy(np.flatnonzero(runs[layer])).to(device)
