"""Rotary position embedding: the frequencies (Su et al. 2021, RoFormer) and how longer contexts rescale them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from offramp.errors import Unsupported, WeightsError

RopeType = Literal["default", "linear", "llama3", "yarn"]
ROPE_TYPES: tuple[str, ...] = get_args(RopeType)


@dataclass(frozen=True, slots=True)
class RopeSpec:
    """How positions turn into rotations.

    Args:
        theta: base of the wavelengths.
        rope_type: `default`; `linear` (position interpolation, Chen et al. 2023); `llama3` (Llama 3.1's smoothed
            interpolation); `yarn` (Peng et al. 2023).
        factor: how far the context was stretched.
        original_max_len: tokens of context before stretching (`llama3`, `yarn`).
        low_freq_factor, high_freq_factor: `llama3`: wavelengths above `original_max_len / low_freq_factor` are
            stretched, those below `original_max_len / high_freq_factor` are not.
        beta_fast, beta_slow: `yarn`: rotations over the original context between which interpolation fades in.
        truncate: `yarn`: round that range outwards to whole dimensions.
        attention_factor: `yarn`: multiplies cosine and sine; None computes it from `factor` and the scales.
        mscale, mscale_all_dim: `yarn`: DeepSeek's scales of the attention factor; 0 is unset.
        divisors: what each frequency is divided by, as GGUF files store Llama 3.1 scaling; empty for none.

    Raises:
        Unsupported: a rope type outside the list above.
        WeightsError: a value that makes no rotation.
    """

    theta: float = 10_000.0
    rope_type: RopeType = "default"
    factor: float = 1.0
    original_max_len: int = 0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    truncate: bool = True
    attention_factor: float | None = None
    mscale: float = 0.0
    mscale_all_dim: float = 0.0
    divisors: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.rope_type not in ROPE_TYPES:
            allowed = ", ".join(f"`{name}`" for name in ROPE_TYPES)
            raise Unsupported(f"rope type `{self.rope_type}` is not supported; these are: {allowed}")
        if not (math.isfinite(self.theta) and self.theta > 1):
            raise WeightsError(f"rope theta must be a number above 1, not {self.theta!r}")
        if not (math.isfinite(self.factor) and self.factor > 0):
            raise WeightsError(f"rope factor must be a number above 0, not {self.factor!r}")
        if self.rope_type in ("llama3", "yarn") and self.original_max_len < 1:
            raise WeightsError(f"rope type `{self.rope_type}` needs `original_max_position_embeddings`")
        if self.rope_type == "llama3" and not 0 < self.low_freq_factor < self.high_freq_factor:
            raise WeightsError(
                f"rope `low_freq_factor` must be above 0 and below `high_freq_factor`, not {self.low_freq_factor!r} "
                f"and {self.high_freq_factor!r}"
            )


def inverse_frequencies(rope: RopeSpec, head_dim: int) -> tuple[npt.NDArray[np.float64], float]:
    """Frequencies in radians per position, (head_dim / 2,) float64, and what cosine and sine are multiplied by.

    Raises:
        WeightsError: `divisors` of another length than head_dim / 2.
    """
    frequencies = rope.theta ** -(np.arange(0, head_dim, 2, dtype=np.float64) / head_dim)
    if rope.divisors:
        if len(rope.divisors) != head_dim // 2:
            raise WeightsError(f"the model stores {len(rope.divisors)} rope divisors for {head_dim // 2} frequencies")
        frequencies = frequencies / np.asarray(rope.divisors, dtype=np.float64)
    if rope.rope_type == "linear":
        return frequencies / rope.factor, 1.0
    if rope.rope_type == "llama3":
        return _llama3(rope, frequencies), 1.0
    if rope.rope_type == "yarn":
        return _yarn(rope, frequencies, head_dim), _yarn_attention_factor(rope)
    return frequencies, 1.0


def _llama3(rope: RopeSpec, frequencies: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Blend from kept (short wavelengths) to divided by `factor` (long ones)."""
    rotations = rope.original_max_len * frequencies / (2 * math.pi)
    kept = (rotations - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor)
    return _blend(frequencies, rope.factor, np.clip(kept, 0, 1))


def _yarn(rope: RopeSpec, frequencies: npt.NDArray[np.float64], head_dim: int) -> npt.NDArray[np.float64]:
    """Blend over the dimensions between `beta_fast` and `beta_slow` rotations (YaRN, "NTK-by-parts")."""

    def dimension(rotations: float) -> float:
        wavelength = rope.original_max_len / (rotations * 2 * math.pi)
        return head_dim * math.log(wavelength) / (2 * math.log(rope.theta))

    low, high = dimension(rope.beta_fast), dimension(rope.beta_slow)
    if rope.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, head_dim - 1)
    ramp = (np.arange(head_dim // 2) - low) / ((high - low) or 0.001)
    return _blend(frequencies, rope.factor, 1 - np.clip(ramp, 0, 1))


def _blend(
    frequencies: npt.NDArray[np.float64], factor: float, kept: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    return frequencies * kept + frequencies / factor * (1 - kept)


def _yarn_attention_factor(rope: RopeSpec) -> float:
    if rope.attention_factor is not None:
        return rope.attention_factor

    def scale(mscale: float) -> float:
        return 0.1 * mscale * math.log(rope.factor) + 1 if rope.factor > 1 else 1.0

    if rope.mscale and rope.mscale_all_dim:
        return scale(rope.mscale) / scale(rope.mscale_all_dim)
    return scale(1.0)
