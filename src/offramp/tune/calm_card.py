"""MODEL_CARD.md of a T5 trained with its exits, from the provenance."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from offramp.tune.card import at_precision, listed, table

CALLED = {
    "max_prob": "softmax response: the largest probability (`max_prob`)",
    "margin": "softmax response: the gap between the two largest (`margin`)",
    "saturation": "saturation: cosine to the exit before (`saturation`)",
    "classifier": "classifier (`classifier`)",
}


def calm_card(provenance: Mapping[str, Any]) -> str:
    """The card, in Markdown."""
    spec, data, top = provenance["model"]["spec"], provenance["data"], provenance["full_depth_of"]
    curves = {"max_prob": provenance["exits"], **provenance["criteria"]}
    parts = [
        "# A T5 trained for its exits",
        f"{spec['num_encoder_layers']} encoder layers, {spec['num_layers']} decoder layers, width "
        f"{spec['hidden_size']}, {spec['vocab_size']:,} tokens. Exits at decoder layers "
        f"{listed(provenance['plan']['layers'])}, each with the model's own final norm and LM head, and a linear "
        "classifier (CALM, Schuster et al. 2022). This folder is the model and its exit pack at once.",
        f"Made by offramp {provenance['offramp']}:",
        f"    {provenance['command']}",
        "## How good it is",
        f"On {top['tokens']:,} held-out target tokens, the tokens before given: the top chooses {top['right']:.2%} of "
        f"them, cross-entropy {top['loss']:.4f} nats. The first layer whose choice is the top's is layer "
        f"{provenance['oracle_depth']:.2f} on average: no criterion can leave earlier and say the same.",
        "Agreement with the top, and tokens that may leave at a precision (threshold), by criterion:",
        *(part for name, found in curves.items() for part in (f"{CALLED[name]}:", _curves(found))),
        "## Training",
        f"Loss behind every decoder layer, weighted `{provenance['settings']['exit_weights']}`. Held out, tokens "
        "before given:",
        _history(provenance["history"]),
        "Then the model was frozen, and classifiers learnt whether an exit agrees with the top "
        f"(`{provenance['settings']['classifier']}`).",
        "## Data",
        f"{data['pairs']:,} pairs with {data['tokens']:,} target tokens and {data['targets']:,} different targets, of "
        f"which {data['held_out_tokens']:,} tokens are held out, SHA-256 `{data['sha256']}`.",
        "## Settings",
        "```json\n" + json.dumps(provenance["settings"], indent=1) + "\n```",
    ]
    return "\n\n".join(parts) + "\n"


def _curves(curves: Sequence[Mapping[str, Any]]) -> str:
    precisions = list(curves[0]["at_precision"])
    head = ("layer", "KL", "agreement", *(f"tokens at {float(p):.0%} precision (threshold)" for p in precisions))
    rows = ((str(c["layer"]), f"{c['kl']:.3f}", f"{c['agreement']:.3f}", *at_precision(c)) for c in curves)
    return table(head, rows)


def _history(history: Sequence[Mapping[str, Any]]) -> str:
    layers = list(history[0]["exits"])
    head = ("tokens seen", "loss of the top", "right", *(f"layer {layer}: loss / agreement" for layer in layers))
    rows = (
        (
            f"{entry['tokens']:,}",
            f"{entry['top']:.4f}",
            f"{entry['right']:.2%}",
            *(f"{e['loss']:.3f} / {e['agreement']:.3f}" for e in entry["exits"].values()),
        )
        for entry in history
    )
    return table(head, rows)
