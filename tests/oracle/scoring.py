"""What an exit says about a token: which one it would choose, and each criterion's confidence."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from offramp.types.exits import ExitParams
from offramp.types.sampling import SamplingParams
from tests.oracle.model import Array, Model
from tests.oracle.sampling import adjust, draw, softmax


class Context(NamedTuple):
    """The tokens up to the position that chooses, and how it chooses. `seed` is the request's, resolved."""

    prompt: list[int]
    output: list[int]
    sampling: SamplingParams
    seed: int
    banned: set[int]

    @property
    def next_position(self) -> int:
        return len(self.prompt) + len(self.output)


class Opinion(NamedTuple):
    """The token an exit would choose (None: it cannot), the probabilities it gives, largest first, and the deep state
    [d] that the token would leave."""

    token: int | None
    probabilities: Array
    cosine: float | None
    classifier: float | None
    state: Array


def choose_at_top(model: Model, hidden: Array, context: Context) -> int | None:
    """The top's token for the hidden state [d] after the last layer; None where nothing is left to choose."""
    logits = adjust(model.top_logits(hidden), context.sampling, context.prompt, context.output, context.banned)
    return draw(logits, context.sampling, context.seed, context.next_position)


def opinion(
    model: Model, boundary: int, hidden: Array, previous: Array | None, past: Array, context: Context
) -> Opinion:
    """Exit `boundary` on the hidden state [d] there, the one at the boundary before (None at the first), and the deep
    state of the token before."""
    joined = model.join(boundary, hidden, past)
    raw, other = model.exit_logits(boundary, joined)
    logits = adjust(raw, context.sampling, context.prompt, context.output, context.banned)
    vocabulary = model.vocabulary(boundary)
    outside = set(range(model.vocab_size)) - set(vocabulary)
    if other is not None and outside <= context.banned:
        other = -math.inf
    outcomes = logits[vocabulary] if other is None else np.append(logits[vocabulary], other)
    wanted_outside = any(bias > 0 and token in outside for token, bias in context.sampling.logit_bias.items())
    other_wins = other is not None and other > logits[vocabulary].max()
    token = None
    if not (wanted_outside or other_wins):
        token = draw(logits, context.sampling, context.seed, context.next_position)
    return Opinion(
        token=token,
        probabilities=-np.sort(-softmax(outcomes)) if np.isfinite(outcomes).any() else np.zeros(len(outcomes)),
        cosine=None if previous is None else max(0.0, float(cosine(hidden, previous))),
        classifier=model.classify(boundary, joined),
        state=joined,
    )


def cosine(a: Array, b: Array) -> float:
    return float(a @ b / math.sqrt((a @ a) * (b @ b)))


def confidence(exit: ExitParams, layer: int, index: int, opinions: list[Opinion]) -> float | None:
    """The criterion's confidence in output `index` at exit `layer`; `opinions` are the exits tested, this one last."""
    now = opinions[-1]
    match exit.criterion:
        case "max_prob":
            return float(now.probabilities[0])
        case "margin":
            return float(now.probabilities[0] - now.probabilities[1])
        case "entropy":
            p = now.probabilities[now.probabilities > 0]
            return 1 + float((p * np.log(p)).sum()) / math.log(len(now.probabilities))
        case "saturation":
            return now.cosine
        case "classifier":
            return now.classifier
        case "patience":
            n = exit.options.get("exits", 1)
            recent = [o.token for o in opinions[-n - 1 :]]
            return float(len(recent) == n + 1 and len(set(recent)) == 1)
        case "fixed":
            return float(layer == exit.options["layer"])
        case "never":
            return None
        case "replay":
            layers = exit.options["exit_layers"]
            return 1.0 if index < len(layers) and layer == layers[index] else None
    raise AssertionError(f"the oracle knows no criterion {exit.criterion}")


def draft_floor(exit: ExitParams, drafts: list[float]) -> float:
    """What `draft_threshold` asks of a draft behind drafts of these confidences."""
    together = 1.0
    for sure in drafts:
        together *= sure
    return exit.draft_threshold / max(together, 1e-9)


def threshold(exit: ExitParams, layer: int, index: int, max_tokens: int) -> float | None:
    """The threshold for output `index` at exit `layer`, None where the request does not test it."""
    value = exit.threshold.get(layer) if isinstance(exit.threshold, Mapping) else exit.threshold
    if value is None or layer < exit.min_layer:
        return None
    if exit.decay is None:
        return value
    decayed = 0.9 * value + 0.1 * math.exp(-exit.decay * index / max_tokens)
    return min(max(decayed, 0.0), 1.0)
