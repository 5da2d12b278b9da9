"""What training begins with: the model as it is, or a pack that was made before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from offramp.errors import InvalidParameter
from offramp.exits.pack import ExitPack, ExitSpec
from offramp.exits.read import expected_tensors, read_pack
from offramp.tune.heads import Head, Words, new_head
from offramp.tune.lora import new_factors
from offramp.tune.request import TuneRequest
from offramp.tune.samples import Sample
from offramp.tune.sizes import CPU
from offramp.tune.vocabulary import words_of
from offramp.tune.workshop import Workshop


class Start(NamedTuple):
    """Words, a head over them for each exit, and the factors of the trunk's change."""

    words: Words
    heads: list[Head]
    factors: dict[str, Tensor]


def start_of(request: TuneRequest, shop: Workshop, samples: Sequence[Sample]) -> Start:
    """New heads and factors, or those of the pack `request.start`.

    Raises:
        InvalidParameter: the pack has other exits or another rank than are asked for.
        PackError: the pack is of another model.
    """
    assert isinstance(request.exits, tuple), "a request for this recipe names its layers"
    spec, shapes = shop.model.spec, shop.model.weights.shapes()
    factors = new_factors(shapes, spec.num_layers, request.trunk.lora_rank, request.train.train_seed, shop.device)
    words, heads = heads_of(request, shop, samples, request.exits)
    if request.start is None:
        return Start(words, heads, factors)
    trunk = read_pack(request.start).trunk
    there = {} if trunk is None else {name: torch.tensor(a) for name, a in trunk.tensors().items()}
    if _shapes(there) != _shapes(factors):
        raise _other(request)
    kept = {name: t.float().to(shop.device).requires_grad_() for name, t in there.items()}
    return Start(words, heads, {name: kept[name] for name in factors})


def heads_of(
    request: TuneRequest, shop: Workshop, samples: Sequence[Sample], layers: Sequence[int]
) -> tuple[Words, list[Head]]:
    """Words and a head over them at each of `layers`: new ones, or those of the pack `request.start`.

    Raises:
        InvalidParameter: the pack has other exits than are asked for, or other vocabularies.
        PackError: the pack is of another model.
    """
    spec, seed = shop.model.spec, request.train.train_seed
    words = words_of(request, shop, samples)
    heads = [new_head(layer, request.head, words, spec, seed) for layer in layers]
    if request.start is None:
        return words, heads
    pack = read_pack(request.start)
    pack.check_model(spec, shop.lm_head.norm)
    if request.trunk_is_frozen and pack.trunk is not None:
        raise InvalidParameter(
            f"`{request.start}` changes the trunk, and its heads are those of that one",
            param="start",
            hint="go on with the recipe `layerskip`",
        )
    if [replace(e, classifier="none") for e in pack.exits] != [head.spec for head in heads]:
        raise _other(request)
    words = read_words(pack, pack.exits[0], shop, shop.device)
    there = [read_head(pack, e, words) for e in pack.exits]
    if [_shapes(head.tensors) for head in there] != [_shapes(head.tensors) for head in heads]:
        raise _other(request)
    for head in there:
        for tensor in head.tensors.values():
            tensor.requires_grad_()
    return words, there


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in tensors.items()}


def _other(request: TuneRequest) -> InvalidParameter:
    return InvalidParameter(
        f"`{request.start}` has other exits, or adapters of another size, than this run asks for",
        param="start",
        hint="give the options of heads and trunk that it was made with",
    )


def said_of_start(request: TuneRequest) -> dict[str, Any]:
    """How the pack that a run goes on from was made, for the pack that comes of it."""
    if request.start is None:
        return {}
    before = read_pack(request.start).provenance
    return {"start": {key: before[key] for key in ("command", "data", "settings", "history", "start") if key in before}}


def read_words(pack: ExitPack, spec: ExitSpec, shop: Workshop, device: torch.device = CPU) -> Words:
    """The words that a finished head scores."""
    ids = range(shop.model.spec.vocab_size) if spec.vocabulary is None else pack.vocabularies[spec.vocabulary]
    return Words.of(ids, shop.lm_head, shop.model.spec, device)


def read_head(pack: ExitPack, spec: ExitSpec, words: Words) -> Head:
    """A finished head, as it is served; a router that it has is left out."""
    plain = replace(spec, classifier="none")
    names = expected_tensors(plain, 0, 0)
    tensors = {name: torch.tensor(pack.tensor(spec.layer, name)).float().to(words.device) for name in names}
    return Head(plain, tensors, words)
