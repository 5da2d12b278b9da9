"""What all training has in common: AdamW, cosine schedule, checkpoints, early stop on held-out data."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from offramp.files import draft_of
from offramp.tune.report import Meter
from offramp.tune.settings import TrainSettings

WARM_UP = 0.05
"""The share of steps over which the learning rate rises."""

MAX_NORM = 1.0
"""Gradients of a part are scaled down to this norm."""


@dataclass
class Progress:
    """What a checkpoint holds besides tensors: steps done, every look at held-out data, each part's best score, and the
    seconds of training where its time is limited."""

    step: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    best: dict[int, float] = field(default_factory=dict)
    waited: int = 0
    seconds: float = 0.0


class Loop(ABC):
    """Trains tensors.

    Args:
        parts: what is trained. Parts do not touch one another, and each keeps what was best for it.
        settings: how.
    """

    def __init__(self, parts: Sequence[Mapping[str, Tensor]], settings: TrainSettings) -> None:
        self._parts, self._settings = parts, settings
        self._optimizer = torch.optim.AdamW(self._groups(), fused=True)
        self._kept = [_copies(part) for part in parts]
        self.progress = Progress()

    @property
    @abstractmethod
    def steps(self) -> int:
        """All steps."""

    @abstractmethod
    def tokens(self, step: int) -> int:
        """How many tokens so many steps take."""

    @abstractmethod
    def _add_gradients(self, step: int) -> float:
        """Add the gradients of a step, from 0; returns its loss."""

    @abstractmethod
    def _look(self) -> tuple[dict[str, Any], list[float]]:
        """Look at held-out data: what the history keeps, and a score for each part, of which less is better."""

    def run(self, checkpoint: Path, meter: Meter) -> None:
        """Train to the end, or go on from `checkpoint` if it is there; parts end as what was best on held-out data."""
        if checkpoint.is_file():
            self._load(checkpoint)
        progress = self.progress
        meter(self.tokens(progress.step))
        while progress.step < self.steps and progress.waited < self._settings.patience:
            loss = self._step()
            progress.step += 1
            meter(self.tokens(progress.step), f"loss {loss:.3f}")
            if self._due():
                self._evaluate()
                self._save(checkpoint)
        for part, kept in zip(self._parts, self._kept, strict=True):
            _fill(part, kept)

    def _due(self) -> bool:
        """Whether to look at held-out data now."""
        every = max(1, self.steps // self._settings.evaluations)
        return self.progress.step % every == 0 or self.progress.step == self.steps

    def _step(self) -> float:
        rate = self._settings.lr * schedule(self.progress.step, self.steps)
        for group in self._optimizer.param_groups:
            group["lr"] = rate * group.get("scale", 1.0)
        self._optimizer.zero_grad()
        loss = self._add_gradients(self.progress.step)
        for part in self._parts:
            torch.nn.utils.clip_grad_norm_(part.values(), MAX_NORM)
        self._optimizer.step()
        return loss

    def _evaluate(self) -> None:
        """Look at held-out data; keep each part that has become better."""
        progress = self.progress
        progress.waited += 1
        entry, scores = self._look()
        for number, (part, score) in enumerate(zip(self._parts, scores, strict=True)):
            if score < progress.best.get(number, math.inf):
                progress.best[number], progress.waited = score, 0
                self._kept[number] = _copies(part)
        progress.history.append({"step": progress.step, "tokens": self.tokens(progress.step), **entry})

    def _groups(self) -> list[dict[str, Any]]:
        """Matrices decay, norms and biases and "other" do not."""
        tensors = [(name, t) for part in self._parts for name, t in part.items()]
        decays = [t for name, t in tensors if t.dim() > 1 and "other" not in name]
        others = [t for name, t in tensors if t.dim() == 1 or "other" in name]
        groups = [(decays, self._settings.weight_decay), (others, 0.0)]
        return [{"params": params, "weight_decay": decay} for params, decay in groups if params]

    def _save(self, path: Path) -> None:
        state = {
            "progress": vars(self.progress),
            "parts": [{name: t.detach() for name, t in part.items()} for part in self._parts],
            "kept": self._kept,
            "optimizer": self._optimizer.state_dict(),
        }
        with draft_of(path) as draft:
            torch.save(state, draft)

    def _load(self, path: Path) -> None:
        state = torch.load(path, map_location="cpu", weights_only=True)
        self.progress = Progress(**state["progress"])
        self._kept = state["kept"]
        for part, tensors in zip(self._parts, state["parts"], strict=True):
            _fill(part, tensors)
        self._optimizer.load_state_dict(state["optimizer"])


def schedule(step: int, steps: int) -> float:
    """The learning rate as a share of its peak: a linear rise, then a cosine to 0 (Loshchilov and Hutter 2017)."""
    warm = max(1, round(WARM_UP * steps))
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


def _copies(part: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in part.items()}


def _fill(part: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    for name, tensor in part.items():
        tensor.detach().copy_(values[name])
