"""MODEL_CARD.md: what an exit pack is, what it was made of and how good it is, from the pack's provenance."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Provenance = Mapping[str, Any]


def model_card(provenance: Provenance) -> str:
    """The card, in Markdown."""
    data, model = provenance["data"], provenance["model"]
    vocabulary = provenance["vocabulary"]
    words = (
        f"{vocabulary['words']:,} tokens, {vocabulary['coverage']:.1%} of what the top chooses on held-out data, "
        "and have one output for all others"
        if vocabulary["coverage"] < 1
        else "all tokens"
    )
    parts = [
        f"# Exit pack for {model['name']}",
        f"Exits at layers {listed(provenance['plan']['layers'])} of {model['layers']}. Heads score {words}.",
        f"Made by offramp {provenance['offramp']}:",
        "\n".join(f"    {command}" for command in _commands(provenance)),
        "## Why these layers",
        provenance["plan"]["why"] + ".",
        _candidates(provenance["plan"]["candidates"]),
        "## How good the exits are",
        f"On {data.get('judged_tokens', data['held_out_tokens']):,} answer tokens that were held out. A choice agrees "
        "where it is the top's.",
        _curves(provenance["exits"]),
        "Leaving at a fixed threshold of `max_prob`: share of tokens that leave / share of those that agree.",
        _points(provenance["exits"]),
        *_rollouts(provenance["exits"], provenance.get("rollouts")),
        *_router(provenance.get("router")),
        *_full_depth(provenance.get("full_depth")),
        "## Training",
        f"Recipe `{'`, `'.join(provenance['recipes'])}`; {_how(provenance)}. Held-out KL (nats) / agreement:",
        _history(provenance["history"]),
        "## Data",
        f"From {data['source']}: {data['samples']:,} sequences with {data['tokens']:,} answer tokens, SHA-256 "
        f"`{data['sha256']}`. "
        f"Hidden states and choices are those of the {model['executor']} executor, weights {model['dtype']}, "
        f"KV {model['kv_dtype']}, model `{model['identity'][:16]}`.",
        "## Settings",
        "```json\n" + json.dumps(provenance["settings"], indent=1) + "\n```",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _commands(provenance: Provenance) -> list[str]:
    """Those that made the pack, in their order."""
    before = _commands(provenance["start"]) if "start" in provenance else []
    return [*before, *(provenance[key] for key in ("command", "router_command") if key in provenance)]


def _how(provenance: Provenance) -> str:
    if "full_depth" not in provenance:
        return "KL to the top's distribution on a frozen trunk"
    return "the trunk tuned with its exits, which learn the KL to the top's distribution"


def _full_depth(quality: Mapping[str, Any] | None) -> list[str]:
    if quality is None:
        return []
    head = ("", "cross-entropy of the answers, nats", "perplexity", "answer tokens that are its choice")
    rows = (
        (f"{which} trunk", f"{loss:.4f}", f"{math.exp(loss):.3f}", f"{quality[f'{which}_right']:.2%}")
        for which, loss in ((which, quality[which]) for which in ("original", "tuned"))
    )
    return [
        "## What it does to the model at full depth",
        f"The pack changes the trunk, so its tokens at full depth are not the original model's. On the "
        f"{quality['tokens']:,} held-out answer tokens both choose the same for {quality['same_choice']:.2%}.",
        table(head, rows),
    ]


def listed(layers: Sequence[int]) -> str:
    """`1, 2, 3`"""
    return ", ".join(map(str, layers))


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _candidates(rows: Sequence[Mapping[str, Any]]) -> str:
    if not rows:
        return ""
    head = ("layer", "agreement", "tokens that leave", "price of a check, ms", "speed alone")
    return table(
        head,
        (
            (
                str(r["layer"]),
                f"{r['agreement']:.2f}",
                f"{r['share']:.1%}",
                f"{r['check_ms']:.2f}",
                f"{r['alone']:.2f}",
            )
            for r in rows
        ),
    )


def _curves(exits: Sequence[Mapping[str, Any]]) -> str:
    precisions = list(exits[0]["at_precision"])
    head = ("layer", "KL", "agreement", *(f"tokens at {float(p):.0%} precision (threshold)" for p in precisions))
    return table(head, ((str(e["layer"]), f"{e['kl']:.3f}", f"{e['agreement']:.3f}", *at_precision(e)) for e in exits))


def at_precision(curve: Mapping[str, Any]) -> list[str]:
    """Tokens of a curve that leave at each precision, and the threshold that has it."""
    return [f"{p['share']:.1%} ({p['threshold']:.3f})" for p in curve["at_precision"].values()]


def _points(exits: Sequence[Mapping[str, Any]]) -> str:
    head = ("layer", *(f"{p['threshold']:g}" for p in exits[0]["points"]))
    return table(
        head, ((str(e["layer"]), *(f"{p['share']:.1%} / {p['precision']:.3f}" for p in e["points"])) for e in exits)
    )


def _rollouts(first: Sequence[Mapping[str, Any]], later: Sequence[Mapping[str, Any]] | None) -> list[str]:
    if not later:
        return []
    precision = next(iter(first[0]["at_precision"]))
    steps = [{"step": 1, "exits": first}, *later]
    head = ("tokens before that left there too", *(f"layer {curve['layer']}" for curve in first))
    rows = (
        (
            str(entry["step"] - 1),
            *(f"{c['agreement']:.3f} / {c['at_precision'][precision]['share']:.1%}" for c in entry["exits"]),
        )
        for entry in steps
    )
    about = f"Agreement / tokens at {float(precision):.0%} precision, where tokens before had left at the same exit:"
    return [about, table(head, rows)]


def _router(routers: Sequence[Mapping[str, Any]] | None) -> list[str]:
    if not routers:
        return []
    return [
        "Leaving by the router (criterion `classifier`) instead; the loss is balanced over both labels:",
        _curves_of(routers),
    ]


def _curves_of(routers: Sequence[Mapping[str, Any]]) -> str:
    precisions = list(routers[0]["at_precision"])
    head = ("layer", "loss", *(f"tokens at {float(p):.0%} precision (threshold)" for p in precisions))
    return table(head, ((str(r["layer"]), f"{r['loss']:.3f}", *at_precision(r)) for r in routers))


def _history(history: Sequence[Mapping[str, Any]]) -> str:
    layers = list(history[0]["exits"])
    top = ["loss of the top"] if "top" in history[0] else []
    rows = (
        (
            f"{entry['tokens']:,}",
            *(f"{e['kl']:.3f} / {e['agreement']:.3f}" for e in entry["exits"].values()),
            *(f"{entry['top']:.4f}" for _ in top),
        )
        for entry in history
    )
    return table(("tokens seen", *(f"layer {layer}" for layer in layers), *top), rows)
