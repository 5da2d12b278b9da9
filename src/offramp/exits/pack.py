"""Exit packs: what adds exits to a base model.

A pack is a folder:

    exits.json          which exits there are, and what each is made of
    exits.safetensors   their tensors (may be absent if no exit has any)
    trunk.safetensors   a low-rank change of the model's linear layers (only where `trunk` names it)
    calibration.json    thresholds measured for a risk (optional; see `offramp.exits.calibration`)

`exits.json`, format 1:

    {"format": 1,
     "base": {"num_layers": 30, "hidden_size": 576, "vocab_size": 49152,
              "model": "smollm2-135m",          # optional, for people
              "fingerprint": "<sha256>"},       # optional, of the final norm (`norm_fingerprint`)
     "trunk": {"rank": 32},                     # optional: the pack changes the model's linear layers
     "vocabularies": {"frequent": [0, 1, 2]},   # optional: name -> token ids, ascending
     "exits": [{"layer": 10, "norm": "own", "adapter": "linear", "head": "shared",
                "vocabulary": "frequent", "other": true, "classifier": "mlp"}],
     "defaults": {"criterion": "max_prob", "threshold": {"10": 0.9}},   # optional ExitParams
     "provenance": {}}                          # optional, anything

An exit reads h, the hidden state after `layer` layers (0 is the embedding), and computes, each key being optional:

    tap          "output" (default). "attention" is named by the format and refused by this version.
    past         "none"; "deep": h is replaced by p + W [RMSNorm(h); RMSNorm(p)], where p is the deep state of the token
                 before (below)
    adapter      "none"; "linear": h + W h + b (tuned lens, Belrose et al. 2023);
                 "mlp": h + down(silu(gate x) * up x), x = RMSNorm(h) (MLP heads of EE-LLM, Chen et al. 2024)
    norm         "shared": the model's final RMSNorm; "own": one of its own; "none"
    head         "shared": the LM head, on what the model scales x by before it (T5 1.0; `T5Spec.head_scale`);
                 "own": a matrix of its own, which meets x as it is. "layer" (an attention layer) is named by the format
                 and refused by this version.
    vocabulary   null: every token; or a name in `vocabularies`: only those tokens are scored
    other        true: one more output inside the softmax, for every token outside the vocabulary; it never exits
    temperature  logits are divided by it (temperature scaling, Guo et al. 2017). Default 1.
    classifier   "none"; on x = norm(h), without the adapter: "linear": sigmoid(w x + b) (CALM, Schuster et al. 2022);
                 "mlp": sigmoid(up silu(down x))

The *deep state* of a token follows from where its successor was chosen: at the top, it is the token's hidden state
there, before the final norm; at an exit, what meets that exit's norm. Where the token before has left early, an exit
thus sees what its head made of it: the autoregression of features of EAGLE (Li et al. 2024), with the trunk's lower
layers below it. It is 0 for the first token of a sequence.

Tensors of the exit at layer e are named `exits.<e>.` and then, for hidden size d, any m, and r scored tokens:

    past deep        past.hidden_norm.weight [d], past.state_norm.weight [d], past.weight [d, 2 d]
    adapter linear   adapter.weight [d, d], adapter.bias [d]
    adapter mlp      adapter.norm.weight [d], adapter.gate_proj.weight [m, d], adapter.up_proj.weight [m, d],
                     adapter.down_proj.weight [d, m]
    norm own         norm.weight [d]
    head own         head.weight [r, d], rows in the order of the vocabulary
    other            other.weight [1, d], other.bias [1]
    classifier       linear: classifier.weight [1, d], classifier.bias [1]
                     mlp: classifier.down.weight [m, d], classifier.down.bias [m],
                     classifier.up.weight [1, m], classifier.up.bias [1]

The change of the trunk (LoRA, Hu et al. 2021) is merged when the model is loaded: a matrix W [rows, columns] becomes
W + B A, on whatever path its tokens leave, the top included. `trunk.safetensors` has for each matrix that changes, by
its Hugging Face name,

    <name>.lora_a    A [rank, columns]
    <name>.lora_b    B [rows, rank]; any scale is multiplied in

Only the projections q, k, v, o, gate, up and down of the layers change, never a norm, the embedding or the LM head, so
the fingerprint of the base holds.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np

from offramp.errors import PackError
from offramp.exits.calibration import Calibration
from offramp.exits.trunk import TrunkAdapter
from offramp.types.exits import ExitParams
from offramp.weights.merged import MergedWeights
from offramp.weights.source import Array, WeightSource

Norm = Literal["shared", "own", "none"]
Adapter = Literal["none", "linear", "mlp"]
Head = Literal["shared", "own"]
Classifier = Literal["none", "linear", "mlp"]
Past = Literal["none", "deep"]


class ModelSizes(Protocol):
    """What a pack must know of a model; every `offramp.models.Spec` is one."""

    @property
    def num_layers(self) -> int:
        """Decoder layers."""
        ...

    @property
    def hidden_size(self) -> int:
        """Size of a hidden state."""
        ...

    @property
    def vocab_size(self) -> int:
        """Tokens."""
        ...


class Tensors(Protocol):
    """Where a pack's tensors are."""

    def load(self, name: str) -> Array:
        """The tensor; see `offramp.weights.source.WeightSource.load`."""
        ...


@dataclass(frozen=True, slots=True)
class Base:
    """The model a pack was made for: its sizes, and optionally its name and `norm_fingerprint`."""

    num_layers: int
    hidden_size: int
    vocab_size: int
    model: str | None = None
    fingerprint: str | None = None

    def check(self, model: ModelSizes, final_norm: Array) -> None:
        """Check that this is `model`, whose final norm has the weights `final_norm` [hidden_size].

        Raises:
            PackError: a size or the fingerprint differs.
        """
        hint = f"use {f'`{self.model}`' if self.model else 'the model it was made for'}, or a pack made for this model"
        for name in ("num_layers", "hidden_size", "vocab_size"):
            own, wanted = getattr(model, name), getattr(self, name)
            if own != wanted:
                raise PackError(
                    f"the exit pack is for a model with `{name}` {wanted}, and this model has {own}", hint=hint
                )
        if self.fingerprint not in (None, norm_fingerprint(final_norm)):
            raise PackError("the exit pack was made for another model: its fingerprint is not this model's", hint=hint)


@dataclass(frozen=True, slots=True)
class ExitSpec:
    """One exit; the fields are the keys of `exits.json` (see the module's description)."""

    layer: int
    norm: Norm = "shared"
    adapter: Adapter = "none"
    head: Head = "shared"
    vocabulary: str | None = None
    other: bool = False
    temperature: float = 1.0
    classifier: Classifier = "none"
    past: Past = "none"


@dataclass(frozen=True)
class ExitPack:
    """A pack, validated when it is read. Tensors are loaded when asked for.

    `identity` is the SHA-256 of `exits.json` and of both files of tensors, or names the layers of a static pack. `base`
    is None where any model that is deep enough will do, `trunk` where the model stays as it is.
    """

    identity: str
    base: Base | None
    exits: tuple[ExitSpec, ...]
    vocabularies: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    defaults: ExitParams | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)
    calibrations: tuple[Calibration, ...] = ()
    tensors: Tensors | None = None
    trunk: TrunkAdapter | None = None

    @property
    def layers(self) -> tuple[int, ...]:
        """The exit layers, ascending."""
        return tuple(spec.layer for spec in self.exits)

    @property
    def reads_past(self) -> bool:
        """Whether an exit reads the deep state of the token before."""
        return any(spec.past == "deep" for spec in self.exits)

    def tensor(self, layer: int, name: str) -> Array:
        """Tensor `exits.<layer>.<name>`; shapes are listed in the module's description."""
        assert self.tensors is not None, "a pack that was read has all the tensors its exits name"
        return self.tensors.load(f"exits.{layer}.{name}")

    def check_model(self, model: ModelSizes, final_norm: Array) -> None:
        """Check that the pack adds exits to `model`, whose final norm has the weights `final_norm` [hidden_size].

        Raises:
            PackError: the pack is for another model.
        """
        check_layers(self.layers, model.num_layers)
        if self.base is not None:
            self.base.check(model, final_norm)

    def tuned(self, weights: WeightSource) -> WeightSource:
        """The weights that run: a model's own `weights`, with the pack's change of the trunk merged in.

        Raises:
            PackError: the change does not fit them.
        """
        if self.trunk is None:
            return weights
        self.trunk.check_fits(weights.shapes())
        return MergedWeights(weights, self.trunk)


def norm_fingerprint(final_norm: Array) -> str:
    """SHA-256 of the final norm's weights as little-endian float32.

    Quantised files keep norms in float32, so every file of a model gives the same value.
    """
    return hashlib.sha256(np.ascontiguousarray(final_norm, dtype="<f4").tobytes()).hexdigest()


def static_exits(layers: Sequence[int], num_layers: int) -> ExitPack:
    """The model's own final norm and LM head after each of `layers` (LayerSkip, Elhoushi et al. 2024).

    Raises:
        PackError: layers that do not ascend or are not in 0..`num_layers` - 1.
    """
    check_layers(layers, num_layers)
    identity = "static:" + ",".join(map(str, layers))
    return ExitPack(identity, None, tuple(ExitSpec(layer) for layer in layers))


def check_layers(layers: Sequence[object], num_layers: int) -> None:
    """Check exit layers: whole numbers in 0..`num_layers` - 1, ascending.

    Raises:
        PackError: they are not.
    """
    last = -1
    for layer in layers:
        if not isinstance(layer, int) or isinstance(layer, bool) or not 0 <= layer < num_layers:
            raise PackError(f"an exit layer must be a whole number from 0 to {num_layers - 1}, not {layer!r}")
        if layer <= last:
            raise PackError(f"exit layers must ascend, and {layer} comes after {last}")
        last = layer
