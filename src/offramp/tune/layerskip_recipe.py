"""Recipe `layerskip`: a trunk tuned for its exits, with exit heads (LayerSkip, Elhoushi et al. 2024)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from offramp.exits.read import read_pack
from offramp.exits.write import replace_file, write_pack
from offramp.tune.card import model_card
from offramp.tune.choose import Plan
from offramp.tune.curves import PRECISIONS, curve_of
from offramp.tune.dense import DenseTrunk
from offramp.tune.heads import VOCABULARY, Head, Words, new_head
from offramp.tune.layerskip import Lessons, TrunkTrainer
from offramp.tune.lora import new_factors
from offramp.tune.provenance import provenance
from offramp.tune.quality import compare
from offramp.tune.request import TuneRequest
from offramp.tune.samples import Sample
from offramp.tune.top import TopHead
from offramp.tune.train import judge
from offramp.tune.vocabulary import coverage, frequent_tokens
from offramp.tune.workshop import Workshop
from offramp.types.exits import ExitParams

JUDGED = 32768
"""Held-out tokens that exits are judged on."""


def tune_trunk(request: TuneRequest, shop: Workshop, samples: Sequence[Sample]) -> None:
    """Train the trunk and its exit heads, judge them on the executor that will serve, and write the pack; nothing,
    where a run before has finished that."""
    done, checkpoint = shop.state / "layerskip.done", shop.state / "checkpoint.pt"
    if done.is_file():
        return
    assert isinstance(request.exits, tuple), "a request for this recipe names its layers"
    spec, weights, seed = shop.model.spec, shop.model.weights, request.train.train_seed
    words = _words(request, shop, samples)
    heads = [new_head(layer, request.head, words, spec, seed) for layer in request.exits]
    trunk = DenseTrunk(spec, weights, new_factors(weights.shapes(), spec.num_layers, request.trunk.lora_rank, seed))
    lessons = _lessons(request, shop, samples)
    trainer = TrunkTrainer(trunk, TopHead(shop.lm_head, spec), heads, lessons, request.train, request.trunk)
    trainer.run(checkpoint, shop.meter("layerskip", trainer.tokens(trainer.steps)))
    exits, vocabularies = [head.spec for head in heads], {VOCABULARY: words.ids.tolist()} if words.outside else {}
    tensors = {name: array for head in heads for name, array in head.arrays().items()}
    change = {name: factor.detach().numpy() for name, factor in trunk.factors.items()}
    # The change has to be on disk for the executor to run it; how good that is says the second writing.
    write_pack(request.out, shop.base, exits, tensors, trunk=change, vocabularies=vocabularies)
    said, defaults = _judged(request, shop, samples, heads, words)
    said["history"] = trainer.progress.history
    write_pack(
        request.out,
        shop.base,
        exits,
        tensors,
        trunk=change,
        vocabularies=vocabularies,
        defaults=defaults,
        provenance=said,
    )
    replace_file(request.out / "MODEL_CARD.md", model_card(said).encode())
    done.touch()
    checkpoint.unlink()


def _judged(
    request: TuneRequest, shop: Workshop, samples: Sequence[Sample], heads: Sequence[Head], words: Words
) -> tuple[dict[str, Any], ExitParams]:
    """What the pack says of itself but for its history, and its thresholds."""
    held_out, layers = [s for s in samples if s.held_out], [head.spec.layer for head in heads]
    original = shop.features(held_out, (), folder=shop.state / "original")
    tuned = shop.features(held_out, layers, read_pack(request.out).trunk, shop.state / "tuned")
    rows = tuned.rows(held_out=True)
    curves = [
        curve_of(layer, kl, judged)
        for layer, (kl, judged) in zip(layers, judge(heads, words, tuned, rows[:JUDGED]), strict=True)
    ]
    said = {
        **provenance(request, shop, samples, Plan(tuple(layers), "They were given")),
        "vocabulary": {"words": len(words.ids), "coverage": coverage(tuned.choice[rows], words.ids.tolist())},
        "exits": [curve.to_dict() for curve in curves],
        "full_depth": compare(original, tuned, shop.lm_head),
    }
    thresholds = {c.layer: c.at_precision[PRECISIONS[0]].threshold for c in curves}
    # A trunk that has learnt with K and V of every layer has never seen what `fill` puts in their place.
    return said, ExitParams(threshold=thresholds, kv="fill" if request.trunk.filled else "recompute")


def _lessons(request: TuneRequest, shop: Workshop, samples: Sequence[Sample]) -> Lessons:
    """What is learnt: the answers, or to stay as the original trunk was."""
    share = request.trunk.distil
    if share is None:
        share = float(request.data.data == "self")
    return Lessons(samples, shop.features(samples, ()).top if share else None, share)


def _words(request: TuneRequest, shop: Workshop, samples: Sequence[Sample]) -> Words:
    """The words that heads score: the most frequent in the answers that are trained on."""
    spec = shop.model.spec
    size = min(request.head.head_words or spec.vocab_size, spec.vocab_size)
    answers = [s.token_ids[s.prompt_tokens :] for s in samples if not s.held_out]
    ids = frequent_tokens(
        np.array([i for a in answers for i in a], np.int32), size, spec.vocab_size, spec.eos_token_ids
    )
    return Words.of(ids, shop.lm_head, spec)
