"""Recipe `layerskip`: a trunk tuned for its exits, with exit heads (LayerSkip, Elhoushi et al. 2024)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from offramp.exits.read import read_pack
from offramp.exits.write import write_pack
from offramp.files import replace_file
from offramp.tune.card import model_card
from offramp.tune.choose import Plan
from offramp.tune.curves import PRECISIONS
from offramp.tune.heads import VOCABULARY, Head, Words
from offramp.tune.layerskip import TrunkTrainer
from offramp.tune.provenance import provenance
from offramp.tune.quality import compare
from offramp.tune.request import TuneRequest
from offramp.tune.samples import Sample, to_judge
from offramp.tune.start import said_of_start, start_of
from offramp.tune.train import curves_of
from offramp.tune.vocabulary import coverage
from offramp.tune.workshop import Workshop
from offramp.types.exits import ExitParams


def tune_trunk(request: TuneRequest, shop: Workshop, samples: Sequence[Sample]) -> None:
    """Train the trunk and its exit heads, judge them on the executor that will serve, and write the pack; nothing,
    where a run before has finished that."""
    done, checkpoint = shop.state / "layerskip.done", shop.state / "checkpoint.pt"
    if done.is_file():
        return
    words, heads, factors = start_of(request, shop, samples)
    trainer = TrunkTrainer(*shop.dense(factors), heads, samples, request.train, request.trunk, _distil(request))
    trainer.run(checkpoint, shop.meter("layerskip", trainer.tokens(trainer.steps)))
    exits, vocabularies = [head.spec for head in heads], {VOCABULARY: words.ids.tolist()} if words.outside else {}
    tensors = {name: array for head in heads for name, array in head.arrays().items()}
    change = {name: factor.detach().cpu().numpy() for name, factor in factors.items()}
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
    held_out, layers = to_judge(samples), [head.spec.layer for head in heads]
    original = shop.features(held_out, (), folder=shop.state / "original")
    tuned = shop.features(held_out, layers, read_pack(request.out).trunk, shop.state / "tuned")
    curves, choices = curves_of(heads, words, tuned), tuned.choice[tuned.rows(held_out=True)]
    said = {
        **provenance(request, shop, samples, Plan(tuple(layers), "They were given")),
        **said_of_start(request),
        "vocabulary": {"words": len(words.ids), "coverage": coverage(choices, words.ids.tolist())},
        "exits": [curve.to_dict() for curve in curves],
        "full_depth": compare(original, tuned, shop.lm_head),
    }
    thresholds = {c.layer: c.at_precision[PRECISIONS[0]].threshold for c in curves}
    # A trunk that has learnt with K and V of every layer has never seen what `fill` puts in their place.
    return said, ExitParams(threshold=thresholds, kv="fill" if request.trunk.filled else "recompute")


def _distil(request: TuneRequest) -> float:
    """How far the top is to stay as it was, not to learn the answers."""
    share = request.trunk.distil
    return float(request.data.data == "self") if share is None else share
