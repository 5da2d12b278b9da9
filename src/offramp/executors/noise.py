"""The noise of Gumbel-max sampling, a function of (seed, position, token id) alone.

Because the noise of a token does not depend on what else is computed, the same request draws the same tokens whatever
is in the batch, and a draft drawn at an exit agrees with the top wherever their distributions do.

The bits come from SplitMix64 (Steele, Lea and Flood 2014), whose i-th output is a hash of (state, i): the generator
seeded by the request's seed gives each position a key, and the generator started at that key gives each token 64 bits.
This module is the definition, in NumPy; executors compute the same integers their own way.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

GAMMA = 0x9E3779B97F4A7C15
MIX = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))
LAST_SHIFT = 31
UNIFORM_BITS = 52
"""Bits of a uniform number; with the half added it is exact in float64 and never 0 or 1."""


def position_keys(seeds: Sequence[int], positions: Sequence[int]) -> np.ndarray:
    """A key per (seed, position): uint64 [rows]. Seeds and positions count modulo 2^64."""
    modulus = 1 << 64
    started = _mix(np.array([(s + GAMMA) % modulus for s in seeds], dtype=np.uint64))
    return _output(started, np.array(positions, dtype=np.uint64))


def token_bits(keys: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """64 bits per key and token: uint64 [rows, tokens]."""
    return _output(keys[:, None], tokens.astype(np.uint64)[None, :])


def gumbel(keys: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """Standard Gumbel noise per key and token: float64 [rows, tokens]."""
    high = (token_bits(keys, tokens) >> np.uint64(64 - UNIFORM_BITS)).astype(np.float64)
    uniform = (high + 0.5) * 2.0**-UNIFORM_BITS
    return np.asarray(-np.log(-np.log(uniform)))


def _output(state: np.ndarray, index: np.ndarray) -> np.ndarray:
    return _mix(state + (index + np.uint64(1)) * np.uint64(GAMMA))


def _mix(x: np.ndarray) -> np.ndarray:
    for shift, factor in MIX:
        x = (x ^ (x >> np.uint64(shift))) * np.uint64(factor)
    return np.asarray(x ^ (x >> np.uint64(LAST_SHIFT)))
