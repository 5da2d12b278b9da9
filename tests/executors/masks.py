"""Masks of allowed tokens, packed as `ScoreRow.allowed` has them."""

from __future__ import annotations

from collections.abc import Iterable


def packed(tokens: Iterable[int]) -> bytes:
    """The mask that allows `tokens`, as long as the largest of them makes it."""
    mask = 0
    for token in tokens:
        mask |= 1 << token
    return mask.to_bytes(-(-mask.bit_length() // 8), "little")


def tokens_of(mask: bytes) -> set[int]:
    """The tokens that a mask allows."""
    return {8 * i + bit for i, byte in enumerate(mask) for bit in range(8) if byte >> bit & 1}
