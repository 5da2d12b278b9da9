"""Recipes `heads` and `deep`: exit heads on a frozen trunk (EE-Tuning, Pan et al. 2024; Balcony, Jamialahmadi et al.
2025), which in `deep` read the deep state of the token before (EAGLE, Li et al. 2024)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from offramp.exits.write import replace_file, write_pack
from offramp.tune.card import model_card
from offramp.tune.choose import Plan, candidate_layers
from offramp.tune.curves import PRECISIONS
from offramp.tune.features import Features
from offramp.tune.heads import VOCABULARY, Head, Words, new_head
from offramp.tune.probe import PROBE_TOKENS, probe
from offramp.tune.provenance import provenance
from offramp.tune.request import TuneRequest
from offramp.tune.samples import Sample, first_samples
from offramp.tune.train import Trainer
from offramp.tune.vocabulary import coverage, frequent_tokens
from offramp.tune.workshop import Workshop
from offramp.types.exits import ExitParams

MOST_JUDGED = 4
"""Steps of a rollout that are judged."""


def tune_heads(request: TuneRequest, shop: Workshop, samples: Sequence[Sample]) -> None:
    """Choose exits, train their heads and write the pack; nothing, where a run before has finished that."""
    done = shop.state / "heads.done"
    if done.is_file():
        return
    plan = _plan(request, shop, samples)
    features = shop.features(samples, plan.layers)
    words = _words(request, shop, features)
    heads = _new_heads(request, shop, plan.layers, words)
    trainer = Trainer(heads, words, features, request.train)
    checkpoint = shop.state / "checkpoint.pt"
    trainer.run(checkpoint, shop.meter("heads", trainer.steps * trainer.batch))
    curves, ids = trainer.curves(), words.ids.tolist()
    said = {
        **provenance(request, shop, samples, plan),
        "vocabulary": {"words": len(ids), "coverage": coverage(features.choice[features.rows(held_out=True)], ids)},
        "exits": [curve.to_dict() for curve in curves],
        "rollouts": _rollouts(request, trainer),
        "history": trainer.progress.history,
    }
    thresholds = {curve.layer: curve.at_precision[PRECISIONS[0]].threshold for curve in curves}
    tensors = {name: array for head in heads for name, array in head.arrays().items()}
    write_pack(
        request.out,
        shop.base,
        [head.spec for head in heads],
        tensors,
        vocabularies={VOCABULARY: ids} if words.outside else {},
        defaults=ExitParams(threshold=thresholds),
        provenance=said,
    )
    replace_file(request.out / "MODEL_CARD.md", model_card(said).encode())
    done.touch()
    checkpoint.unlink()


def _rollouts(request: TuneRequest, trainer: Trainer) -> list[dict[str, Any]]:
    """How good exits that read the past are behind tokens that left there too."""
    if request.head.past == "none":
        return []
    steps = range(2, MOST_JUDGED + 1)
    return [{"step": step, "exits": [curve.to_dict() for curve in trainer.curves(step)]} for step in steps]


def _plan(request: TuneRequest, shop: Workshop, samples: Sequence[Sample]) -> Plan:
    """The exits given, those that a run before has chosen, or now the best."""
    if isinstance(request.exits, tuple):
        return Plan(request.exits, "They were given")
    path = shop.state / "plan.json"
    if path.is_file():
        values = json.loads(path.read_bytes())
        return Plan(tuple(values["layers"]), values["why"], tuple(values["candidates"]))
    layers = candidate_layers(shop.model.spec.num_layers, deep=request.head.past == "deep")
    features = shop.features(first_samples(samples, PROBE_TOKENS), layers)
    words = _words(request, shop, features)
    heads = _new_heads(request, shop, layers, words)
    plan = probe(request, shop, heads, words, features)
    replace_file(path, json.dumps(asdict(plan)).encode())
    return plan


def _words(request: TuneRequest, shop: Workshop, features: Features) -> Words:
    """The words that heads score: the most frequent in what is trained on."""
    spec = shop.model.spec
    size = min(request.head.head_words or spec.vocab_size, spec.vocab_size)
    choices = features.choice[features.rows(held_out=False)]
    return Words.of(frequent_tokens(choices, size, spec.vocab_size, spec.eos_token_ids), shop.lm_head, spec)


def _new_heads(request: TuneRequest, shop: Workshop, layers: Sequence[int], words: Words) -> list[Head]:
    spec, seed = shop.model.spec, request.train.train_seed
    return [new_head(layer, request.head, words, spec, seed) for layer in layers]
