"""Recipes `heads` and `deep`: exit heads on a frozen trunk (EE-Tuning, Pan et al. 2024; Balcony, Jamialahmadi et al.
2025), which in `deep` read the deep state of the token before (EAGLE, Li et al. 2024)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict

from offramp.exits.write import write_pack
from offramp.files import replace_file
from offramp.tune.card import model_card
from offramp.tune.choose import Plan, candidate_layers
from offramp.tune.curves import PRECISIONS
from offramp.tune.heads import VOCABULARY
from offramp.tune.live import LiveHeadTrainer
from offramp.tune.loop import Loop
from offramp.tune.probe import PROBE_TOKENS, probe
from offramp.tune.provenance import provenance
from offramp.tune.request import TuneRequest
from offramp.tune.samples import Sample, first_samples, to_judge
from offramp.tune.start import heads_of, said_of_start
from offramp.tune.train import Trainer, curves_of
from offramp.tune.vocabulary import coverage
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
    words, heads = heads_of(request, shop, samples, plan.layers)
    checkpoint, ids = shop.state / "checkpoint.pt", words.ids.tolist()
    if shop.live:
        # Apart: the work folder's features are of all samples.
        features = shop.features(to_judge(samples), plan.layers, folder=shop.state / "held-out")
        trainer: Loop = LiveHeadTrainer(*shop.dense(), heads, samples, request.train)
    else:
        features = shop.features(samples, plan.layers)
        trainer = Trainer(heads, words, features, request.train)
    trainer.run(checkpoint, shop.meter("heads", trainer.tokens(trainer.steps)))
    curves = curves_of(heads, words, features)
    said = {
        **provenance(request, shop, samples, plan),
        **said_of_start(request),
        "vocabulary": {"words": len(ids), "coverage": coverage(features.choice[features.rows(held_out=True)], ids)},
        "exits": [curve.to_dict() for curve in curves],
        "rollouts": [
            {"step": step, "exits": [curve.to_dict() for curve in curves_of(heads, words, features, step)]}
            for step in (range(2, MOST_JUDGED + 1) if request.head.past != "none" else ())
        ],
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


def _plan(request: TuneRequest, shop: Workshop, samples: Sequence[Sample]) -> Plan:
    """The exits given, those that a run before has chosen, or now the best."""
    if isinstance(request.exits, tuple):
        return Plan(request.exits, "They were given")
    path = shop.state / "plan.json"
    if path.is_file():
        values = json.loads(path.read_bytes())
        return Plan(tuple(values["layers"]), values["why"], tuple(values["candidates"]))
    layers = candidate_layers(shop.model.spec.num_layers, deep=request.head.past == "deep")
    some = enough_to_probe(samples)
    features = shop.features(some, layers)
    words, heads = heads_of(request, shop, some, layers)
    plan = probe(request, shop, heads, words, features)
    replace_file(path, json.dumps(asdict(plan)).encode())
    return plan


def enough_to_probe(samples: Sequence[Sample]) -> list[Sample]:
    """What the probe learns from and is judged on: few tokens, and sequences of both kinds, which all together have."""
    count = len(first_samples(samples, PROBE_TOKENS))
    while len({sample.held_out for sample in samples[:count]}) < 2:
        count += 1
    return list(samples[:count])
