"""Exit heads, and the model's own head: boundary hidden state -> logits, and the classifier."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from offramp.errors import PackError
from offramp.executors.torch.layers import rms_norm
from offramp.executors.torch.weights import to_tensor
from offramp.exits.pack import ExitPack, ExitSpec

Map = Callable[[Tensor], Tensor]
Join = Callable[[Tensor, Tensor], Tensor]
"""Of hidden states and the deep states of the tokens before, both [rows, hidden_size]."""


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Which token each column of a head's logits stands for.

    `ids` is int64 [columns], ascending. `columns` maps a token id to its column, -1 where it has none: int64
    [vocab_size], on the CPU.
    """

    ids: Tensor
    columns: Tensor

    @classmethod
    def of(cls, ids: Sequence[int], vocab_size: int, device: torch.device) -> Vocabulary:
        """The vocabulary with these ascending token ids."""
        listed = torch.tensor(ids)
        columns = torch.full((vocab_size,), -1)
        columns[listed] = torch.arange(len(ids))
        return cls(listed.to(device), columns)

    def find(self, tokens: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Columns of `tokens` [n] and whether each token is the model's at all [n]; column -1 is for none."""
        ids = torch.tensor(tokens, dtype=torch.int64)
        known = (ids >= 0) & (ids < len(self.columns))
        return torch.where(known, self.columns[ids.where(known, 0)], -1), known


@dataclass(frozen=True)
class HeadModule:
    """A head on the hidden states [rows, hidden_size] of a boundary.

    Attributes:
        vocabulary: the tokens of the columns; with `has_other`, one more column follows for all other tokens.
    """

    vocabulary: Vocabulary
    matrix: Tensor  # [columns (+ 1 with has_other), hidden_size]
    norm: Map
    adapter: Map | None = None
    past: Join | None = None
    other_bias: Tensor | None = None  # [1]
    scale: float = 1.0  # of what meets the matrix
    temperature: float = 1.0
    classifier: Map | None = None  # normed hidden [rows, hidden_size] -> logit [rows, 1]

    @property
    def has_other(self) -> bool:
        """Whether the last column stands for every token outside the vocabulary."""
        return self.other_bias is not None

    def states(self, hidden: Tensor) -> Tensor:
        """The deep states of rows whose tokens are chosen here: [rows, hidden_size]."""
        return hidden if self.adapter is None else self.adapter(hidden)

    def logits(self, states: Tensor) -> Tensor:
        """Logits [rows, columns (+ 1)] of what `states` gave, in float32 at least."""
        normed = self.norm(states)
        logits = F.linear(normed if self.scale == 1 else normed * self.scale, self.matrix)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        if self.other_bias is not None:
            logits[:, -1] += self.other_bias
        return logits if self.temperature == 1 else logits / self.temperature

    def classify(self, hidden: Tensor) -> Tensor:
        """The classifier's probability that the exit agrees with the top: [rows], in float32 at least.

        Raises:
            PackError: the exit has no classifier.
        """
        if self.classifier is None:
            raise PackError(
                "`classifier` was asked for at an exit that has none", hint="use another criterion, or a pack with one"
            )
        logit = self.classifier(self.norm(hidden)).squeeze(-1)
        return torch.sigmoid(logit.to(torch.promote_types(logit.dtype, torch.float32)))


def top_head(lm_head: Tensor, final_norm: Tensor, eps: float, scale: float) -> HeadModule:
    """The model's own `final_norm` [hidden_size] and `lm_head` [vocab_size, hidden_size]."""
    vocabulary = Vocabulary.of(range(len(lm_head)), len(lm_head), lm_head.device)
    return HeadModule(vocabulary, lm_head, norm=make_norm(final_norm, eps), scale=scale)


def exit_head(spec: ExitSpec, pack: ExitPack, top: HeadModule, eps: float) -> HeadModule:
    """The head of one exit of `pack`, which shares what it does not own with `top`.

    Raises:
        WeightsError: a tensor of the pack cannot be read.
    """
    device, dtype = top.matrix.device, top.matrix.dtype

    def get(name: str) -> Tensor:
        return to_tensor(pack.tensor(spec.layer, name), device, dtype)

    vocabulary = top.vocabulary
    if spec.vocabulary is not None:
        vocabulary = Vocabulary.of(pack.vocabularies[spec.vocabulary], len(top.vocabulary.ids), device)
    if spec.head == "own":
        matrix = get("head.weight")
    else:
        matrix = top.matrix if spec.vocabulary is None else top.matrix[vocabulary.ids]
    if spec.other:
        matrix = torch.cat((matrix, get("other.weight")))
    norms: dict[str, Callable[[], Map]] = {
        "shared": lambda: top.norm,
        "own": lambda: make_norm(get("norm.weight"), eps),
        "none": lambda: lambda h: h,
    }
    return HeadModule(
        vocabulary,
        matrix,
        norm=norms[spec.norm](),
        adapter=make_adapter(spec.adapter, get, eps),
        past=make_join(spec.past, get, eps),
        other_bias=get("other.bias") if spec.other else None,
        scale=top.scale if spec.head == "shared" else 1.0,
        temperature=spec.temperature,
        classifier=make_classifier(spec.classifier, get),
    )


def make_norm(weight: Tensor, eps: float) -> Map:
    """RMSNorm with these weights."""
    return lambda h: rms_norm(h, weight, eps)


def make_join(kind: str, get: Callable[[str], Tensor], eps: float) -> Join | None:
    """What an exit whose `past` is `kind` makes of the past, over the tensors that `get` gives by their names in a
    pack."""
    if kind == "none":
        return None
    hidden_norm, state_norm = (make_norm(get(f"past.{name}_norm.weight"), eps) for name in ("hidden", "state"))
    weight = get("past.weight")
    return lambda h, p: p + F.linear(torch.cat((hidden_norm(h), state_norm(p)), -1), weight)


def make_adapter(kind: str, get: Callable[[str], Tensor], eps: float) -> Map | None:
    """An adapter of `kind` over the tensors that `get` gives by their names in a pack."""
    if kind == "none":
        return None
    if kind == "linear":
        weight, bias = get("adapter.weight"), get("adapter.bias")
        return lambda h: h + F.linear(h, weight, bias)
    norm = make_norm(get("adapter.norm.weight"), eps)
    gate, up, down = (get(f"adapter.{name}_proj.weight") for name in ("gate", "up", "down"))

    def mlp(h: Tensor) -> Tensor:
        x = norm(h)
        return h + F.linear(F.silu(F.linear(x, gate)) * F.linear(x, up), down)

    return mlp


def make_classifier(kind: str, get: Callable[[str], Tensor]) -> Map | None:
    """A classifier of `kind` over the tensors that `get` gives by their names in a pack."""
    if kind == "none":
        return None
    if kind == "linear":
        weight, bias = get("classifier.weight"), get("classifier.bias")
        return lambda x: F.linear(x, weight, bias)
    down, down_bias = get("classifier.down.weight"), get("classifier.down.bias")
    up, up_bias = get("classifier.up.weight"), get("classifier.up.bias")
    return lambda x: F.linear(F.silu(F.linear(x, down, down_bias)), up, up_bias)
