"""RoPE frequencies are Transformers'."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from offramp.errors import OfframpError, Unsupported, WeightsError
from offramp.models import RopeSpec, inverse_frequencies, spec_from_hf
from tests.models.toys import config

LLAMA3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 128}
SCALINGS: list[dict[str, Any]] = [
    {"rope_type": "linear", "factor": 4.0},
    {"rope_type": "llama3", **LLAMA3},
    {"rope_type": "llama3", **LLAMA3, "low_freq_factor": 0.5, "high_freq_factor": 2.5, "factor": 32.0},
    {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 256},
    {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 256, "truncate": False},
    {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 256, "beta_fast": 16, "beta_slow": 2},
    {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 256, "attention_factor": 1.5},
    {
        "rope_type": "yarn",
        "factor": 40.0,
        "original_max_position_embeddings": 256,
        "mscale": 0.7,
        "mscale_all_dim": 1.3,
    },
    {"rope_type": "yarn", "factor": 0.5, "original_max_position_embeddings": 256},
]


@pytest.mark.parametrize("scaling", SCALINGS, ids=str)
@pytest.mark.parametrize("theta", [10_000.0, 500_000.0])
@pytest.mark.parametrize("head_dim", [16, 64, 128])
def test_scaled_frequencies_equal_transformers(scaling: dict[str, Any], theta: float, head_dim: int) -> None:
    reference = config(
        head_dim=head_dim, max_position_embeddings=1024, rope_parameters={**scaling, "rope_theta": theta}
    )
    expected, attention_factor = ROPE_INIT_FUNCTIONS[scaling["rope_type"]](reference, "cpu")
    found, factor = inverse_frequencies(spec_from_hf(reference.to_dict()).rope, head_dim)
    np.testing.assert_allclose(found, expected.numpy(), rtol=2e-6)
    assert factor == pytest.approx(attention_factor)


def test_plain_frequencies_are_powers_of_theta() -> None:
    found, factor = inverse_frequencies(RopeSpec(theta=16.0), 8)
    assert (found.tolist(), factor) == ([1.0, 0.5, 0.25, 0.125], 1.0)
    assert found.dtype == np.float64


def test_stored_divisors_divide() -> None:
    found, _ = inverse_frequencies(RopeSpec(theta=16.0, divisors=(1.0, 1.0, 2.0, 8.0)), 8)
    assert found.tolist() == [1.0, 0.5, 0.125, 0.015625]


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        (
            {"rope_type": "dynamic"},
            Unsupported,
            "rope type `dynamic` is not supported; these are: `default`, `linear`, `llama3`, `yarn`",
        ),
        ({"theta": 0.0}, WeightsError, "rope theta must be a number above 1, not 0.0"),
        ({"factor": -1.0}, WeightsError, "rope factor must be a number above 0, not -1.0"),
        ({"rope_type": "yarn"}, WeightsError, "rope type `yarn` needs `original_max_position_embeddings`"),
        (
            {"rope_type": "llama3", "original_max_len": 8, "low_freq_factor": 4.0},
            WeightsError,
            "rope `low_freq_factor` must be above 0 and below `high_freq_factor`, not 4.0 and 4.0",
        ),
    ],
)
def test_values_that_make_no_rotation_are_refused(
    changes: dict[str, Any], error: type[OfframpError], message: str
) -> None:
    with pytest.raises(error) as caught:
        RopeSpec(**changes)
    assert caught.value.message == message


def test_divisors_of_another_length_are_refused() -> None:
    with pytest.raises(WeightsError) as caught:
        inverse_frequencies(RopeSpec(divisors=(1.0, 2.0)), 8)
    assert caught.value.message == "the model stores 2 rope divisors for 4 frequencies"
