"""Where an exit pack comes from: all that its model card says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from offramp._version import __version__
from offramp.tune.choose import Plan
from offramp.tune.request import TuneRequest
from offramp.tune.samples import JUDGED, Sample, count_scored, data_hash
from offramp.tune.workshop import Workshop


def provenance(request: TuneRequest, shop: Workshop, samples: Sequence[Sample], plan: Plan) -> dict[str, Any]:
    """What is known before training."""
    held_out = [s for s in samples if s.held_out]
    return {
        "offramp": __version__,
        "command": request.command,
        "recipes": [request.recipes[0]],
        "model": {
            "name": request.model,
            "layers": shop.model.spec.num_layers,
            "identity": shop.model.identity,
            **{name: value for name, value in shop.identity.items() if name != "model"},
        },
        "plan": asdict(plan),
        "data": {
            "source": "the model's own answers to user turns of its own" if request.data.data == "self" else "a file",
            "samples": len(samples),
            "tokens": count_scored(samples),
            "held_out_tokens": count_scored(held_out),
            "judged_tokens": min(JUDGED, count_scored(held_out)),
            "sha256": data_hash(samples),
        },
        "settings": request.settings(router=False),
    }
