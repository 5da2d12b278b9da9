"""`--exits auto`: a short training at layers all over the model, and what exits there would cost and give."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from offramp.engine.costs import CostModel
from offramp.exits.read import read_pack
from offramp.exits.write import write_pack
from offramp.llm.measure import measure_costs
from offramp.tune.choose import Plan, Prices, choose
from offramp.tune.curves import PRECISIONS, curve_of
from offramp.tune.features import Features
from offramp.tune.heads import VOCABULARY, Head, Words
from offramp.tune.request import TuneRequest
from offramp.tune.train import Trainer, judge, lessons_of
from offramp.tune.workshop import Workshop

PROBE_TOKENS = 30_000
PROBE_EPOCHS = 2
PROBE_JUDGED = 4096


def probe(request: TuneRequest, shop: Workshop, heads: Sequence[Head], words: Words, features: Features) -> Plan:
    """Train `heads` briefly, measure their prices on the executor that will serve, and choose among their layers."""
    trainer = Trainer(heads, words, features, replace(request.train, epochs=PROBE_EPOCHS, evaluations=2))
    trainer.run(shop.state / "probe.pt", shop.meter("probe", trainer.steps * trainer.batch))
    layers = [head.spec.layer for head in heads]
    judged = judge(heads, words, lessons_of(heads, words, features, features.rows(held_out=True)[:PROBE_JUDGED]))
    curves = [curve_of(layer, kl, j) for layer, (kl, j) in zip(layers, judged, strict=True)]
    points = [curve.at_precision[PRECISIONS[0]] for curve in curves]
    leaves = [(j.confidence >= p.threshold) & (p.share > 0) for (_, j), p in zip(judged, points, strict=True)]
    fires = np.stack(leaves, axis=1)
    folder = shop.state / "probe"
    tensors = {name: array for head in heads for name, array in head.arrays().items()}
    vocabularies = {VOCABULARY: words.ids.tolist()} if words.outside else {}
    write_pack(folder, shop.base, [head.spec for head in heads], tensors, vocabularies=vocabularies)
    executor = shop.executor(read_pack(folder))
    costs = CostModel.from_layers(executor.shape.layers_at)
    measure_costs(executor, costs)
    (shop.state / "probe.pt").unlink()
    return choose(layers, Prices.of(costs), fires, curves, PRECISIONS[0], request.max_exits)
