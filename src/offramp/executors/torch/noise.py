"""The noise of `offramp.executors.noise` on torch tensors: the same integers, in signed 64-bit arithmetic."""

from __future__ import annotations

import torch
from torch import Tensor

from offramp.executors.noise import GAMMA, LAST_SHIFT, MIX, UNIFORM_BITS


def token_bits(keys: Tensor, tokens: Tensor) -> Tensor:
    """64 bits per key and token: int64 [rows, tokens], the bits of `offramp.executors.noise.token_bits`.

    Args:
        keys: int64 [rows], the bits of `position_keys`.
        tokens: int64 [tokens] or [rows, tokens], token ids.
    """
    x = keys[:, None] + (tokens + 1) * _signed(GAMMA)
    for shift, factor in MIX:
        x = (x ^ _shift_right(x, shift)) * _signed(factor)
    return x ^ _shift_right(x, LAST_SHIFT)


def gumbel(keys: Tensor, tokens: Tensor) -> Tensor:
    """Standard Gumbel noise per key and token: float64 [rows, tokens], on the device of `keys`."""
    high = _shift_right(token_bits(keys, tokens), 64 - UNIFORM_BITS).to(torch.float64)
    return ((high + 0.5) * 2.0**-UNIFORM_BITS).log_().neg_().log_().neg_()


def _shift_right(x: Tensor, bits: int) -> Tensor:
    """A logical shift: torch's own copies the sign bit."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value
