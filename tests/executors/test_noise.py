"""The sampling noise: its definition, and the torch twin."""

from __future__ import annotations

import numpy as np
import torch

from offramp.executors import noise
from offramp.executors.torch import noise as torch_noise

MASK = (1 << 64) - 1
SEEDS = [0, 1, 7, 2**63 - 1, 2**63 + 5]
POSITIONS = [0, 1, 2, 4095, 2**31]
TOKENS = np.array([0, 1, 2, 48_000, 151_935])


def splitmix64(state: int, index: int) -> int:
    """Output `index` (from 0) of the SplitMix64 generator started at `state`, in Python's integers."""
    z = (state + (index + 1) * 0x9E3779B97F4A7C15) & MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def signed(keys: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(keys.view(np.int64))


def test_splitmix64_gives_its_published_outputs() -> None:
    assert [splitmix64(1234567, i) for i in range(3)] == [6457827717110365317, 3203168211198807973, 9817491932198370423]


def test_bits_are_splitmix64_of_seed_then_position_then_token() -> None:
    bits = noise.token_bits(noise.position_keys(SEEDS, POSITIONS), TOKENS)
    for row, (seed, position) in enumerate(zip(SEEDS, POSITIONS, strict=True)):
        key = splitmix64(splitmix64(seed, 0), position)
        assert bits[row].tolist() == [splitmix64(key, int(token)) for token in TOKENS]


def test_torch_has_the_same_bits() -> None:
    keys = noise.position_keys(list(range(200)), list(range(200)))
    tokens = np.arange(300)
    ours = torch_noise.token_bits(signed(keys), torch.from_numpy(tokens)).numpy().view(np.uint64)
    assert np.array_equal(ours, noise.token_bits(keys, tokens))


def test_torch_has_the_same_gumbel_noise() -> None:
    keys = noise.position_keys(SEEDS, POSITIONS)
    ours = torch_noise.gumbel(signed(keys), torch.from_numpy(TOKENS)).numpy()
    np.testing.assert_allclose(ours, noise.gumbel(keys, TOKENS), rtol=1e-12)


def test_the_extreme_bits_give_finite_noise() -> None:
    bits = np.array([0, MASK], dtype=np.uint64)
    uniform = ((bits >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-noise.UNIFORM_BITS
    assert 0 < uniform[0] < uniform[1] < 1


def test_noise_has_the_mean_and_variance_of_a_gumbel() -> None:
    drawn = noise.gumbel(noise.position_keys([3] * 400, list(range(400))), np.arange(500))
    assert abs(drawn.mean() - np.euler_gamma) < 0.01
    assert abs(drawn.var() - np.pi**2 / 6) < 0.02


def test_noise_of_neighbouring_seeds_positions_and_tokens_is_uncorrelated() -> None:
    keys = noise.position_keys([5] * 300 + [6] * 300, [*range(300)] * 2)
    drawn = noise.gumbel(keys, np.arange(301))
    pairs = ((drawn[:300], drawn[300:]), (drawn[:299], drawn[1:300]), (drawn[:, :-1], drawn[:, 1:]))
    assert all(abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < 0.02 for a, b in pairs)
