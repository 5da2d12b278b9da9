"""Training on what the trunk computes at the time, from whole sequences: where the trunk itself is trained, and on
devices that compute hidden states faster than a disk gives them back.

The loss of an exit is KL(top || exit) over the words and "other". In that the top is fixed: exits come to it and not it
to them.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from offramp.tune.batches import Batch, batches, deal
from offramp.tune.dense import DenseTrunk
from offramp.tune.heads import Head, Inputs
from offramp.tune.loop import Loop
from offramp.tune.loss import kl_backward, target_of
from offramp.tune.samples import Sample, first_samples
from offramp.tune.settings import TrainSettings
from offramp.tune.top import Reading, TopHead
from offramp.tune.train import JUDGED_IN_TRAINING, Lesson, judge, judged_entry, rows_at_once


@dataclass(frozen=True)
class Found:
    """What a trunk computed at the answer tokens of a batch.

    `taps`, `final`: hidden states [rows, hidden_size] at each exit and at the top; `before`: the final ones of the
    tokens before; `follows` [rows]: whether the row before is that token's.
    """

    taps: Sequence[Tensor]
    final: Tensor
    before: Tensor
    follows: Tensor

    def inputs(self, exit_number: int, head: Head, rows: slice) -> Inputs:
        """What a head reads at some rows."""
        hidden = self.taps[exit_number][rows]
        if head.spec.past == "none":
            return Inputs(hidden)
        follows = self.follows[rows].clone()
        follows[0] = False
        return Inputs(hidden, self.before[rows], follows)


def found_of(batch: Batch, states: Sequence[Tensor]) -> Found:
    """Hidden states [sequences, tokens, hidden_size] at the exits and the top, read at the answer tokens of a batch."""
    *taps, final = (h.flatten(0, 1)[batch.rows] for h in states)
    before = F.pad(states[-1].detach(), (0, 0, 1, 0))[:, :-1].flatten(0, 1)[batch.rows]
    follows = batch.rows.diff(prepend=batch.rows.new_tensor([-2])) == 1
    return Found(taps, final, before, follows & (batch.rows % batch.ids.shape[1] > 0))


class LiveTrainer(Loop):
    """Trains tensors of which exit heads are some.

    Args:
        trunk, top: the model, and its own head.
        heads: one for each exit, all over the same words.
        samples: what they learn from, and are judged on.
        train: how.
        parts: what is trained, as `Loop` has it; None is each head by itself.
    """

    def __init__(
        self,
        trunk: DenseTrunk,
        top: TopHead,
        heads: Sequence[Head],
        samples: Sequence[Sample],
        train: TrainSettings,
        parts: Sequence[Mapping[str, Tensor]] | None = None,
    ) -> None:
        super().__init__([head.tensors for head in heads] if parts is None else parts, train)
        self._trunk, self._top, self._heads, self._words = trunk, top, heads, heads[0].words
        self._samples = samples
        self._taps = [*(head.spec.layer for head in heads), trunk.depth]
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

    @abstractmethod
    def _learn(self, step: int, batch: Batch, scale: float) -> float:
        """Add the gradients of `scale` times the summed loss of a batch; returns the summed loss."""

    def _add_gradients(self, step: int) -> float:
        """Those of the mean loss of the step's answer tokens."""
        numbers = self._dealt[step]
        count = sum(len(self._samples[i].scored) for i in numbers)
        parts = batches(self._samples, numbers, self._trunk.device)
        return sum(self._learn(step, batch, 1 / count) for batch in parts) / count

    def _teach(self, found: Found, reading: Reading, active: Sequence[int], scale: float) -> float:
        """Add the gradients of `scale` times the summed KL of the `active` exits; returns that sum."""
        total = 0.0
        for inputs, target, _ in self._lessons(found, reading):
            for k in active:
                total += kl_backward(self._heads[k], inputs[k], target, scale, self._settings.rollout)
        return total

    def _judged(self, found: Sequence[Found], readings: Sequence[Reading]) -> tuple[dict[str, Any], list[float]]:
        """KL and agreement of each head, as the history has it, and the KLs alone."""
        lessons = (lesson for pair in zip(found, readings, strict=True) for lesson in self._lessons(*pair))
        judged = judge(self._heads, self._words, lessons)
        return judged_entry(self._heads, judged), [kl for kl, _ in judged]

    def _lessons(self, found: Found, reading: Reading) -> Iterator[Lesson]:
        """What heads read and are to say, in parts whose logits fit in memory."""
        size = rows_at_once(self._words)
        for start in range(0, len(found.final), size):
            rows = slice(start, start + size)
            target = target_of(self._words, found.final.detach()[rows], reading.log_sum[rows])
            inputs = [found.inputs(k, head, rows) for k, head in enumerate(self._heads)]
            yield Lesson(inputs, target, reading.choice[rows])


class LiveHeadTrainer(LiveTrainer):
    """Trains exit heads on a trunk that stays as it is; each keeps what was best for it."""

    def _learn(self, step: int, batch: Batch, scale: float) -> float:
        found, reading = self._run(batch)
        return self._teach(found, reading, range(len(self._heads)), scale) / len(self._heads)

    def _look(self) -> tuple[dict[str, Any], list[float]]:
        """KL and agreement of each head; the KL is its score."""
        seen = [self._run(batch) for batch in batches(self._samples, self._held_out, self._trunk.device)]
        return self._judged([found for found, _ in seen], [reading for _, reading in seen])

    @torch.no_grad()
    def _run(self, batch: Batch) -> tuple[Found, Reading]:
        found = found_of(batch, self._trunk.run(batch.ids, self._taps))
        return found, self._top.read(self._top.states(found.final))
