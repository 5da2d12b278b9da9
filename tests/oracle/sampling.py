"""How a token is drawn, in plain steps: bias, bans, penalties, temperature, truncation, Gumbel-max."""

from __future__ import annotations

from collections import Counter

import numpy as np

from offramp.executors.noise import gumbel, position_keys
from offramp.types.sampling import SamplingParams

Array = np.ndarray


def adjust(logits: Array, sampling: SamplingParams, prompt: list[int], output: list[int], banned: set[int]) -> Array:
    """Logits [vocab] after bias, bans and penalties; -inf is a token that cannot be chosen."""
    out = logits.copy()
    for token, bias in sampling.logit_bias.items():
        out[token] += bias
    for token in banned:
        out[token] = -np.inf
    for token in set(prompt) | set(output):
        out[token] = (
            out[token] / sampling.repetition_penalty if out[token] > 0 else out[token] * sampling.repetition_penalty
        )
    for token, count in Counter(output).items():
        out[token] -= sampling.frequency_penalty * count + sampling.presence_penalty
    return np.asarray(out)


def softmax(logits: Array) -> Array:
    shifted = np.exp(logits - logits.max())
    return np.asarray(shifted / shifted.sum())


def truncate(logits: Array, sampling: SamplingParams) -> Array:
    """Logits at the sampling temperature with what `top_k`, then `top_p`, then `min_p` drop set to -inf."""
    out = logits / sampling.temperature
    order = sorted(range(len(out)), key=lambda token: -out[token])
    if sampling.top_k:
        out[order[sampling.top_k :]] = -np.inf
    probability = softmax(out)
    reached = 0.0
    for token in order:
        if reached >= sampling.top_p:
            out[token] = -np.inf
        reached += probability[token]
    out[probability < sampling.min_p * probability.max()] = -np.inf
    return np.asarray(out)


def draw(logits: Array, sampling: SamplingParams, seed: int, position: int) -> int | None:
    """The token for `position` from adjusted logits [vocab], or None where none is left."""
    if np.all(np.isneginf(logits)):
        return None
    if sampling.temperature == 0:
        return int(np.argmax(logits))
    tokens = np.arange(len(logits))
    noise = gumbel(position_keys([seed], [position]), tokens)[0]
    return int(np.argmax(truncate(logits, sampling) + noise))
