"""Exit heads in training: tensors by their names in a pack, and what they compute.

The trunk is frozen (EE-Tuning, Pan et al. 2024; Balcony, Jamialahmadi et al. 2025), so a head learns from stored hidden
states alone. A kind of head adds its tensors in `first_tensors` and its arithmetic in `Head.deep_states`; loss,
training and writing know neither.

A head that reads the past meets two kinds of it: the final hidden state of the token before where that one was chosen
at the top, and its own output where that one left here. It learns from both: in a rollout, step 1 sees final states,
and step k what step k - 1 made of the token before (training-time test of EAGLE-3, Li et al. 2025).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from offramp.executors.torch.heads import Map, make_adapter, make_join, make_norm
from offramp.executors.torch.layers import rms_norm
from offramp.exits.pack import ExitSpec
from offramp.models.spec import ModelSpec
from offramp.tune.products import product_dtype
from offramp.tune.settings import HeadSettings
from offramp.tune.sizes import CPU
from offramp.tune.trunk import LmHead
from offramp.weights.source import Array

VOCABULARY = "frequent"


@dataclass(frozen=True)
class Words:
    """The tokens that heads score, with what the model's own head says about them.

    Attributes:
        ids: int64 [words], ascending.
        rows: their rows of the LM head, [words, hidden_size] float32.
        outside: how many tokens are left to "other"; 0 where heads score all.
        outside_mean: the mean of the other rows, [hidden_size].
        norm: the final norm's weights, [hidden_size].
    """

    ids: Tensor
    rows: Tensor
    outside: int
    outside_mean: Tensor
    norm: Tensor
    eps: float

    @classmethod
    def of(cls, ids: Sequence[int], lm_head: LmHead, spec: ModelSpec, device: torch.device = CPU) -> Words:
        """The words with these token ids, on a device."""
        matrix, listed = lm_head.matrix, np.array(ids)
        rest = np.ones(len(matrix), dtype=bool)
        rest[listed] = False
        mean = matrix[rest].mean(0, dtype=np.float64) if rest.any() else np.zeros(spec.hidden_size)
        return cls(
            torch.tensor(listed, device=device),
            torch.tensor(matrix[listed], dtype=torch.float32, device=device),
            int(rest.sum()),
            torch.tensor(mean, dtype=torch.float32, device=device),
            torch.tensor(lm_head.norm, dtype=torch.float32, device=device),
            spec.rms_norm_eps,
        )

    @property
    def device(self) -> torch.device:
        """Where they are, and the heads that score them."""
        return self.rows.device

    @cached_property
    def rough_rows(self) -> Tensor:
        """`rows` in `product_dtype`."""
        return self.rows.to(product_dtype(self.device))


class Inputs(NamedTuple):
    """What a head reads at some tokens: `hidden` [rows, hidden_size]; and where heads read the past, `past` [rows,
    hidden_size], the final hidden states of the tokens before, and `follows` [rows], whether the row before is that
    token's.
    """

    hidden: Tensor
    past: Tensor | None = None
    follows: Tensor | None = None


class Head:
    """One exit head.

    Args:
        spec: what the exit is made of.
        tensors: its tensors in float32, by their names in the pack; trained in place.
        words: the tokens it scores.
    """

    def __init__(self, spec: ExitSpec, tensors: Mapping[str, Tensor], words: Words) -> None:
        self.spec, self.tensors, self.words = spec, dict(tensors), words
        self._join = make_join(spec.past, self.tensors.__getitem__, words.eps)
        self._adapter = make_adapter(spec.adapter, self.tensors.__getitem__, words.eps)
        self._norm = self._make_norm()

    def rollout(self, inputs: Inputs, steps: int = 1) -> list[Tensor]:
        """What meets the head's matrix, [rows, hidden_size], at each step; a head that does not read the past has one.

        Where a row does not follow the one before it, every step sees the past of step 1.
        """
        deep = self._deep_states(inputs.hidden, inputs.past)
        states = [self._norm(deep)]
        if self._join is None or inputs.past is None or inputs.follows is None:
            return states
        for _ in range(steps - 1):
            past = torch.where(inputs.follows[:, None], deep.roll(1, 0), inputs.past)
            deep = self._deep_states(inputs.hidden, past)
            states.append(self._norm(deep))
        return states

    def normed(self, inputs: Inputs) -> Tensor:
        """What a classifier reads: [rows, hidden_size]."""
        return self._norm(self._joined(inputs.hidden, inputs.past))

    def _joined(self, hidden: Tensor, past: Tensor | None) -> Tensor:
        return hidden if self._join is None or past is None else self._join(hidden, past)

    def _deep_states(self, hidden: Tensor, past: Tensor | None) -> Tensor:
        joined = self._joined(hidden, past)
        return joined if self._adapter is None else self._adapter(joined)

    @property
    def matrix(self) -> Tensor:
        """The rows of the words, [words, hidden_size] float32."""
        return self.tensors["head.weight"] if self.spec.head == "own" else self.words.rows

    @property
    def rough_matrix(self) -> Tensor:
        """`matrix` in `product_dtype`, without a gradient."""
        rows = self.words.rough_rows
        return self.matrix.detach().to(rows.dtype) if self.spec.head == "own" else rows

    @torch.no_grad()
    def logits(self, inputs: Inputs, step: int = 1) -> Tensor:
        """Logits [rows, words (+ 1, for "other")] at a step, in float32 throughout."""
        states = self.rollout(inputs, step)[-1]
        logits = states @ self.matrix.T
        if not self.spec.other:
            return logits
        other = states @ self.tensors["other.weight"].T + self.tensors["other.bias"]
        return torch.cat((logits, other), -1)

    def arrays(self) -> dict[str, Array]:
        """The tensors by their full names in a pack."""
        return {f"exits.{self.spec.layer}.{name}": t.detach().cpu().numpy() for name, t in self.tensors.items()}

    def _make_norm(self) -> Map:
        if self.spec.norm == "none":
            return lambda h: h
        if self.spec.norm == "own":
            return make_norm(self.tensors["norm.weight"], self.words.eps)
        return lambda h: rms_norm(h, self.words.norm, self.words.eps)


def new_head(layer: int, settings: HeadSettings, words: Words, spec: ModelSpec, seed: int) -> Head:
    """A head before training: the model's own norm and rows, an adapter that changes nothing, and an "other" that
    scores as the rows it stands for do on average."""
    exit_spec = ExitSpec(layer, settings.norm, settings.adapter, settings.head, past=settings.past)
    if words.outside:
        exit_spec = replace(exit_spec, vocabulary=VOCABULARY, other=True)
    tensors = first_tensors(exit_spec, words, settings.adapter_size or spec.intermediate_size, seed)
    return Head(exit_spec, {name: t.to(words.device).requires_grad_() for name, t in tensors.items()}, words)


def first_tensors(spec: ExitSpec, words: Words, adapter_size: int, seed: int) -> dict[str, Tensor]:
    """The tensors that training begins with."""
    d = words.rows.shape[1]
    random = torch.Generator().manual_seed(seed * 1000 + spec.layer)
    tensors: dict[str, Tensor] = {}
    if spec.past == "deep":
        tensors |= {
            "past.hidden_norm.weight": torch.ones(d),
            "past.state_norm.weight": torch.ones(d),
            "past.weight": torch.randn((d, 2 * d), generator=random) / (2 * d) ** 0.5,
        }
    if spec.adapter == "linear":
        tensors |= {"adapter.weight": torch.zeros(d, d), "adapter.bias": torch.zeros(d)}
    elif spec.adapter == "mlp":
        shape = (adapter_size, d)
        tensors |= {
            "adapter.norm.weight": torch.ones(d),
            "adapter.gate_proj.weight": torch.randn(shape, generator=random) / d**0.5,
            "adapter.up_proj.weight": torch.randn(shape, generator=random) / d**0.5,
            "adapter.down_proj.weight": torch.zeros(d, adapter_size),
        }
    if spec.norm == "own":
        tensors["norm.weight"] = words.norm.clone()
    if spec.head == "own":
        tensors["head.weight"] = words.rows.clone()
    if spec.other:
        tensors["other.weight"] = words.outside_mean[None].clone()
        tensors["other.bias"] = torch.tensor([float(np.log(words.outside))])
    return tensors
